//go:build unix

package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// wire is a line to a PostgreSQL server that can be cut.
type wire struct {
	url      string
	listener net.Listener
	server   string
	// commit is what happens to the next message that says "commit".
	commit atomic.Int32
	down   atomic.Bool // new connections are hung up on
	// begin: the next message that says "begin" is lost, and what comes after it on its connection.
	begin atomic.Bool

	mutex sync.Mutex
	ends  []net.Conn
}

// What can happen to a commit: nothing, the line is cut before it, the line is
// cut behind it, it is held back and so is all that comes after it.
const (
	passed int32 = iota
	cutBefore
	cutBehind
	heldBack
)

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, server: u.Host}
	u.Host = l.Addr().String()
	w.url = u.String()
	go w.serve()
	t.Cleanup(func() {
		l.Close()
		w.cut()
	})
	return w
}

func (w *wire) serve() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		if w.down.Load() {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", w.server)
		if err != nil {
			client.Close()
			continue
		}
		w.mutex.Lock()
		w.ends = append(w.ends, client, server)
		w.mutex.Unlock()
		var mute atomic.Bool // the server's answers are not passed on
		go w.up(client, server, &mute)
		go func() {
			defer client.Close()
			defer server.Close()
			pass(client, server, func([]byte) bool { return !mute.Load() })
		}()
	}
}

// up passes on what the client says.
func (w *wire) up(client, server net.Conn, mute *atomic.Bool) {
	defer server.Close()
	pass(server, client, func(said []byte) bool {
		if bytes.Contains(said, []byte("begin\x00")) && w.begin.CompareAndSwap(true, false) {
			io.Copy(io.Discard, client)
			return false
		}
		if !bytes.Contains(said, []byte("commit\x00")) {
			return true
		}
		switch w.commit.Swap(passed) {
		case cutBefore:
			return false
		case cutBehind:
			mute.Store(true)
		case heldBack:
			client.Close()
			w.down.Store(false)
			io.Copy(io.Discard, server) // until the test cuts it
			return false
		}
		return true
	})
	client.Close()
}

// pass copies while ok.
func pass(to io.Writer, from io.Reader, ok func([]byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !ok(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut cuts all connections.
func (w *wire) cut() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, c := range w.ends {
		c.Close()
	}
	w.ends = nil
}

func wantHead(t *testing.T, db *catalog.DB, want int64) {
	t.Helper()
	if head, err := db.Head(t.Context()); err != nil || head != want {
		t.Errorf("the head is %d, %v, want %d", head, err, want)
	}
}

func TestCommitThatWasCutOffIsLookedFor(t *testing.T) {
	t.Parallel()
	w := newWire(t, testbed.SharedPostgres(t).URL)
	db := openPostgres(t, w.url)
	mustAppend(t, db)

	w.commit.Store(cutBefore)
	_, err := appendNext(t.Context(), db)
	if !errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, catalog.ErrUncertain) {
		t.Errorf("cut before the commit: %v, want ErrUnavailable and no doubt", err)
	}
	wantHead(t, db, 1)

	w.commit.Store(cutBehind)
	if idx, err := appendNext(t.Context(), db); err != nil || idx != 1 {
		t.Errorf("cut behind the commit: %d, %v, though it is there", idx, err)
	}
	wantHead(t, db, 2)

	// What has no entry cannot be looked for.
	w.commit.Store(cutBehind)
	err = db.Update(t.Context(), func(tx *catalog.Tx) error {
		return tx.Condemn(t.Context(), []storage.CID{testEntry(0).Record}, time.Unix(1, 0))
	})
	if !errors.Is(err, catalog.ErrUncertain) || !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("cut behind a commit without entries: %v, want ErrUncertain", err)
	}
	w.commit.Store(cutBehind)
	if err := db.Publish(t.Context(), publishing(2)); !errors.Is(err, catalog.ErrUncertain) {
		t.Errorf("cut behind a publication: %v, want ErrUncertain", err)
	}
	if size, _, err := db.Published(t.Context()); err != nil || size != 2 {
		t.Errorf("published is %d, %v", size, err)
	}
}

func TestCommitOfWhichNothingIsHeardIsUncertain(t *testing.T) {
	t.Parallel()
	w := newWire(t, testbed.SharedPostgres(t).URL)
	db := openPostgres(t, w.url)
	mustAppend(t, db)
	w.commit.Store(cutBehind)
	w.down.Store(true)
	began := time.Now()
	_, err := appendNext(t.Context(), db)
	if took := time.Since(began); !errors.Is(err, catalog.ErrUncertain) || !errors.Is(err, catalog.ErrUnavailable) || took > 20*time.Second {
		t.Errorf("no word of the commit: %v after %s, want ErrUncertain", err, took)
	}
	w.down.Store(false)
	wantHead(t, db, 2)
}

// Who has the right to write holds all others up, and a server that has not heard the beginning
// never answers: that is waited for less than a statement may take.
func TestABeginningThatIsNotAnsweredIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWire(t, testbed.SharedPostgres(t).URL)
	db := openPostgres(t, w.url)
	mustAppend(t, db)
	w.begin.Store(true)
	began := time.Now()
	_, err := appendNext(t.Context(), db)
	if took := time.Since(began); !errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, catalog.ErrUncertain) || took > 30*time.Second {
		t.Errorf("no word of the beginning: %v after %s", err, took)
	}
	if idx, err := appendNext(t.Context(), db); err != nil || idx != 1 {
		t.Errorf("the next entry is %d, %v", idx, err)
	}
}

// The server has not heard of the commit yet when its client looks: whoever
// would believe the head that can be read then could be wrong.
func TestCommitUnderWayIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWire(t, testbed.SharedPostgres(t).URL)
	db := openPostgres(t, w.url)
	mustAppend(t, db)
	w.commit.Store(heldBack)
	_, err := appendNext(t.Context(), db)
	if !errors.Is(err, catalog.ErrUncertain) {
		t.Errorf("held back: %v, want ErrUncertain", err)
	}
	wantHead(t, db, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := db.Update(ctx, func(*catalog.Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next Update did not wait for the end of the one before: %v", err)
	}
	w.cut() // and with its connection the commit is lost
	if idx, err := appendNext(t.Context(), db); err != nil || idx != 1 {
		t.Errorf("the next entry is %d, %v", idx, err)
	}
}

func TestReadsAreTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWire(t, testbed.SharedPostgres(t).URL)
	db := openPostgres(t, w.url)
	mustAppend(t, db)
	for range 3 {
		w.down.Store(true)
		w.cut()
		up := time.AfterFunc(300*time.Millisecond, func() { w.down.Store(false) })
		var group sync.WaitGroup
		for name, read := range map[string]func(context.Context) error{
			"Head": func(ctx context.Context) error { _, err := db.Head(ctx); return err },
			"Entries": func(ctx context.Context) error {
				entries, err := db.Entries(ctx, 0, 9)
				if len(entries) == 0 {
					err = errors.Join(err, errors.New("no entries"))
				}
				return err
			},
			"States":    func(ctx context.Context) error { _, err := db.States(ctx, []string{"key"}, 9); return err },
			"Published": func(ctx context.Context) error { _, _, err := db.Published(ctx); return err },
			// A transaction is begun again as long as nothing was said in it.
			"Update": func(ctx context.Context) error { return db.Update(ctx, func(*catalog.Tx) error { return nil }) },
		} {
			group.Go(func() {
				if err := read(t.Context()); err != nil {
					t.Errorf("%s over a short loss of the line: %v", name, err)
				}
			})
		}
		group.Wait()
		up.Stop()
	}
	w.down.Store(true)
	w.cut()
	began := time.Now()
	_, err := db.Head(t.Context())
	if took := time.Since(began); !errors.Is(err, catalog.ErrUnavailable) || took < time.Second || took > 10*time.Second {
		t.Errorf("no database: %v after %s, want ErrUnavailable after some two seconds", err, took)
	}
	if err := db.SetMeta(t.Context(), "a", "b"); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("a write without a database: %v, want ErrUnavailable", err)
	}
	if err := db.Probe(t.Context()); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("Probe without a database: %v, want ErrUnavailable", err)
	}
}

func TestUpdateOfAKilledServerChangesNothing(t *testing.T) {
	t.Parallel()
	p := testbed.Postgres(t)
	db := openPostgres(t, p.URL)
	mustAppend(t, db)
	err := db.Update(t.Context(), func(tx *catalog.Tx) error {
		if err := tx.AppendEntry(t.Context(), testEntry(1)); err != nil {
			return err
		}
		p.Kill()
		return tx.PutState(t.Context(), "key", 1, nil)
	})
	if !errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, catalog.ErrUncertain) {
		t.Errorf("killed between two statements: %v, want ErrUnavailable and no doubt", err)
	}
	p.Start()
	wantHead(t, db, 1)
	err = db.Update(t.Context(), func(tx *catalog.Tx) error {
		if err := tx.AppendEntry(t.Context(), testEntry(1)); err != nil {
			return err
		}
		p.Kill()
		time.AfterFunc(500*time.Millisecond, p.Start)
		return nil
	})
	if !errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, catalog.ErrUncertain) {
		t.Errorf("killed before the commit: %v, want ErrUnavailable and no doubt", err)
	}
	eventually(t, "the database is back", func() bool { _, err := db.Head(t.Context()); return err == nil })
	wantHead(t, db, 1)
	mustAppend(t, db)
}

// Four write while the server is killed again and again: what was acknowledged
// is there, each entry once, and nothing in between.
func TestNothingAcknowledgedIsLostWithTheServer(t *testing.T) {
	t.Parallel()
	p := testbed.Postgres(t)
	db := openPostgres(t, p.URL)
	var mutex sync.Mutex
	acknowledged, failures := map[string]bool{}, 0
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	for writer := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint(writer, "/", i)
				err := appendRecord(t.Context(), db, id)
				mutex.Lock()
				if err == nil {
					acknowledged[id] = true
				} else if failures++; !errors.Is(err, catalog.ErrUnavailable) {
					t.Errorf("an update failed with %v", err)
				}
				mutex.Unlock()
			}
		})
	}
	count := func() int {
		mutex.Lock()
		defer mutex.Unlock()
		return len(acknowledged)
	}
	failed := func() int {
		mutex.Lock()
		defer mutex.Unlock()
		return failures
	}
	for round := 0; round < 4 || round < 30 && failed() == 0; round++ { // a kill may fall between two updates
		before := count()
		eventually(t, "updates succeed", func() bool { return count() > before+20 })
		p.Kill()
		p.Start()
	}
	before := count()
	eventually(t, "updates succeed again", func() bool { return count() > before })
	stop()
	group.Wait()
	entries, err := db.Entries(t.Context(), 0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for i, e := range entries {
		if e.Index != int64(i) || there[e.RecordID] {
			t.Fatalf("entry %d has the index %d and the record %s", i, e.Index, e.RecordID)
		}
		there[e.RecordID] = true
	}
	for id := range acknowledged {
		if !there[id] {
			t.Errorf("%s was acknowledged and is not there", id)
		}
	}
	if failures == 0 {
		t.Error("no update failed, so nothing was killed while it ran")
	}
}

func appendRecord(ctx context.Context, db *catalog.DB, id string) error {
	return db.Update(ctx, func(tx *catalog.Tx) error {
		idx, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		e := testEntry(idx)
		e.RecordID = id
		return tx.AppendEntry(ctx, e)
	})
}

// The database is on a disk of 30 MB.
func TestFullDiskOfTheServer(t *testing.T) {
	t.Parallel()
	p := testbed.Postgres(t)
	disk := smallDisk(t, "30m")
	w := openTwoIn(t, p.URL)
	if _, err := w.admin.ExecContext(t.Context(), "CREATE TABLESPACE small LOCATION '"+disk+"'"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.ExecContext(t.Context(), "ALTER TABLE state SET TABLESPACE small"); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for i := range big { // so that it cannot be compressed
		big[i] ^= byte(i*i>>7) ^ byte(i>>3)
	}
	var err error
	n := int64(0)
	for ; err == nil && n < 200; n++ {
		err = w.a.Update(t.Context(), func(tx *catalog.Tx) error {
			return errors.Join(tx.AppendEntry(t.Context(), testEntry(n)), tx.PutState(t.Context(), fmt.Sprint("key/", n), n, big))
		})
	}
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("after %d MB: %v, want ErrFull", n, err)
	}
	wantHead(t, w.a, n-1)
	if value, ok, err := w.b.State(t.Context(), "key/0", 1<<40); err != nil || !ok || !bytes.Equal(value, big) {
		t.Errorf("what was written can be read: %t, %v", ok, err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,size=60m", filepath.Dir(disk)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := w.a.Update(t.Context(), func(tx *catalog.Tx) error {
		return errors.Join(tx.AppendEntry(t.Context(), testEntry(n-1)), tx.PutState(t.Context(), "key/more", n-1, big))
	}); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// smallDisk mounts a file system of its own that the server may write to.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "aln-disk-")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "mode=777,size="+size, "tmpfs", folder).CombinedOutput()
	if err != nil {
		t.Fatalf("mount (needs root): %v: %s", err, out)
	}
	t.Cleanup(func() {
		// The server ends later than this: what is in use goes when it is not any more.
		if out, err := exec.Command("umount", "-l", folder).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
		os.Remove(folder)
	})
	space := filepath.Join(folder, "space")
	if out, err := exec.CommandContext(t.Context(), "install", "-d", "-o", "postgres", "-m", "700", space).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, strings.TrimSpace(string(out)))
	}
	return space
}
