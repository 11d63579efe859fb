package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// recording is what a server did to its files, and what it acknowledged when.
type recording struct {
	t     *testing.T
	root  string // the folder with all that the server writes
	calls []call
	// greeted is the call with which the first start was announced.
	greeted int
	// acks are the calls that carried an acknowledgement to a client.
	acks []int
	// promised[k] looks for what the acknowledgement k promised.
	promised []promise
	// also, if set, looks for what is so whether acknowledged or not.
	also     func(ctx context.Context, r *registry.Registry, store *disk.Store) error
	seed     maphash.Seed
	verdicts map[verdictKey]error
	opened   int
}

// promise looks for what was acknowledged in a registry opened after a power cut.
type promise func(ctx context.Context, r *registry.Registry) error

type verdictKey struct {
	tree uint64
	acks int
}

// record runs a server's first start and some changes under strace.
func recordChanges(t *testing.T) *recording {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	rec := &recording{t: t, root: t.TempDir(), seed: maphash.MakeSeed(), verdicts: map[verdictKey]error{}}
	wrapper, trace := strace(t, productBinary(t))
	l := &lab{t: t, data: filepath.Join(rec.root, "data"), url: "http://" + steadyAddress(t), program: wrapper}
	l.operator = newUserIn(t, filepath.Join(rec.root, "operator"))
	l.start()
	defer l.endTraced()
	l.awaitIntroduction() // what other programs write in the operator's home is not in the trace
	people := l.people(ctx, 2)
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	first, second := newRelease(rng, 0, "first", "0.1.0", 3000), newRelease(rng, 0, "first", "0.2.0", 3000)
	other := newRelease(rng, 1, "other", "1.0.0", 3000)
	for _, step := range []struct {
		do   func() (receipt, error)
		then promise
	}{
		{func() (receipt, error) { return people[0].publish(ctx, first) }, published(first)},
		{func() (receipt, error) { return people[0].publish(ctx, second) }, published(second)},
		{func() (receipt, error) { return people[0].yank(ctx, first, false) }, yanked(first)},
		{func() (receipt, error) { return people[0].owner(ctx, "first", people[1].did, false) }, owned("first", people[1].did)},
		{func() (receipt, error) { return people[1].publish(ctx, other) }, published(other)},
	} {
		if _, err := step.do(); err != nil {
			t.Fatalf("%v\n%s", err, l.log())
		}
		rec.promised = append(rec.promised, step.then)
	}
	l.endTraced()
	rec.calls = readTrace(t, trace)
	rec.findMarks()
	return rec
}

// awaitIntroduction waits until the server has pinned itself in the operator's
// home, which it does once it serves.
func (l *lab) awaitIntroduction() {
	l.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pins, err := filepath.Glob(filepath.Join(l.operator.home, "registries", "*.json")); err == nil && len(pins) > 0 {
			return
		}
	}
	l.t.Fatalf("the server did not introduce itself to its operator:\n%s", l.log())
}

// endTraced ends the traced server, and strace with it.
func (l *lab) endTraced() {
	if l.cmd == nil {
		return
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			continue
		}
		if server, err := os.FindProcess(pid); err == nil {
			server.Signal(syscall.SIGTERM)
		}
	}
	<-l.exited
	l.cmd = nil
}

// findMarks finds the greeting and the acknowledgements among the calls.
func (rec *recording) findMarks() {
	for i, c := range rec.calls {
		if c.name != "write" {
			continue
		}
		if rec.greeted == 0 && bytes.Contains(c.args[1].bytes, []byte(" serves http")) {
			rec.greeted = i
		}
		if strings.HasPrefix(c.args[0].path, "socket:") && bytes.Contains(c.args[1].bytes, []byte("log index")) {
			rec.acks = append(rec.acks, i)
		}
	}
	if rec.greeted == 0 || len(rec.acks) != len(rec.promised) {
		rec.t.Fatalf("greeting at %d, %d acknowledgements of %d are in the trace", rec.greeted, len(rec.acks), len(rec.promised))
	}
}

// anAuditor sees what was published, whoever may use it.
var anAuditor = policy.Asker{DID: "did:web:auditor.example", Scopes: []string{particle.ScopeAudit}}

func published(r release) promise {
	return func(ctx context.Context, reg *registry.Registry) error {
		v, err := reg.Version(ctx, anAuditor, record.KindCrate, r.name, r.version)
		if err != nil {
			return err
		}
		if v.CID != r.cid {
			return fmt.Errorf("%s is %s", r.key(), v.CID)
		}
		file, err := reg.IndexFile(ctx, anAuditor, r.name)
		if err != nil || !bytes.Contains(file.Plain.Bytes, []byte(r.cid.Hex())) {
			return fmt.Errorf("%s does not stand in the index: %v", r.key(), err)
		}
		blob, err := reg.OpenArtifact(ctx, v)
		if err != nil {
			return err
		}
		return blob.Close()
	}
}

func yanked(r release) promise {
	return func(ctx context.Context, reg *registry.Registry) error {
		v, err := reg.Version(ctx, anAuditor, record.KindCrate, r.name, r.version)
		if err == nil && !v.Yanked {
			err = fmt.Errorf("%s is not yanked", r.key())
		}
		return err
	}
}

func owned(name string, who did.DID) promise {
	return func(ctx context.Context, reg *registry.Registry) error {
		owners, err := reg.Owners(ctx, anAuditor, name)
		if err == nil && !slices.Contains(owners, who) {
			err = fmt.Errorf("%s is no owner of %s", who, name)
		}
		return err
	}
}

// model is the file system as it was before the server's first start.
func (rec *recording) model() *modelFS {
	m := newModelFS(rec.root)
	folder := newFolder()
	folder.names["cargo"] = newFolder() // what newUserIn makes
	folder.safe["cargo"] = folder.names["cargo"]
	m.top.names["operator"], m.top.safe["operator"] = folder, folder
	return m
}

// cutting is called after each call with how many acknowledgements had been sent.
type cutting func(i, acks int, m *modelFS) (more bool)

// replay goes through the trace; the sync with the number ignored has no effect.
func (rec *recording) replay(ignored int, visit cutting) {
	m, acks := rec.model(), 0
	for i, c := range rec.calls {
		if _, err := m.apply(c, i == ignored); err != nil {
			rec.t.Fatalf("call %d: %v", i, err)
		}
		if acks < len(rec.acks) && i == rec.acks[acks] {
			acks++
		}
		if !visit(i, acks, m) {
			return
		}
	}
}

// survives opens what is left of a registry, as serve does, and looks for all
// that was acknowledged. The same tree is judged once.
func (rec *recording) survives(left tree, acks int) error {
	key := verdictKey{left.sum(rec.seed), acks}
	err, known := rec.verdicts[key]
	if !known {
		rec.opened++
		err = rec.look(left, acks)
		rec.verdicts[key] = err
	}
	return err
}

func (rec *recording) look(left tree, acks int) error {
	folder, err := os.MkdirTemp(scratch(), "aln-cut-*")
	if err != nil {
		rec.t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	if err := left.write(folder); err != nil {
		rec.t.Fatal(err)
	}
	ctx, data := rec.t.Context(), filepath.Join(folder, "data")
	keys, err := registry.OpenKeys(filepath.Join(data, "keys", "registry.jwk"), "", noRandomness{})
	if err != nil {
		return err
	}
	store, err := disk.Open(filepath.Join(data, "store"))
	if err != nil {
		return err
	}
	defer store.Close()
	db, err := catalog.OpenSQLite(ctx, filepath.Join(data, "catalog.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := registry.Open(ctx, registry.Config{
		Catalog: db, Blobs: store, Keys: keys, PublicURL: "http://127.0.0.1:1", Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer r.Close()
	for k := range acks {
		if err := rec.promised[k](ctx, r); err != nil {
			return fmt.Errorf("change %d was acknowledged: %w", k+1, err)
		}
	}
	if rec.also != nil {
		if err := rec.also(ctx, r, store); err != nil {
			return err
		}
	}
	return wholeLog(ctx, r)
}

// wholeLog reads every record that the published checkpoint covers, with what it names.
func wholeLog(ctx context.Context, r *registry.Registry) error {
	reader := policy.Asker{DID: r.Settings().Admins[0], Admin: true, Tier: particle.TierCoreStakeholder, Scopes: []string{particle.ScopeRead, particle.ScopeAdmin}}
	for index := range r.Size() {
		stored, err := r.RecordAt(ctx, reader, index)
		if err != nil {
			return fmt.Errorf("record of entry %d: %w", index, err)
		}
		if own, ok := stored.Record.Body().(*record.Own); ok && own.Intent != nil {
			if _, err := r.Attachment(ctx, stored, *own.Intent); err != nil {
				return fmt.Errorf("intent of entry %d: %w", index, err)
			}
		}
	}
	return nil
}

// noRandomness: a registry that is there already makes no new keys.
type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, fs.ErrPermission }

// scratch is a folder in memory: what is tested is the model, not this disk.
func scratch() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// cutEverywhere cuts the power after each call once the server serves, in each way.
func (rec *recording) cutEverywhere() {
	rec.t.Helper()
	cuts := 0
	rec.replay(-1, func(i, acks int, m *modelFS) bool {
		if i < rec.greeted {
			return true
		}
		for how := range survivals {
			cuts++
			if err := rec.survives(m.cut(how), acks); err != nil {
				rec.t.Errorf("power cut after call %d (%s), %s: %v", i, rec.calls[i].name, how, err)
			}
		}
		return !rec.t.Failed()
	})
	rec.t.Logf("%d calls, %d cuts, %d different trees opened", len(rec.calls)-rec.greeted, cuts, rec.opened)
}

func TestPowerCutsLoseNothingAcknowledged(t *testing.T) {
	rec := recordChanges(t)
	rec.cutEverywhere()
	if !t.Failed() {
		rec.everySyncMatters()
		rec.firstStartIsFinished()
	}
}

// spared are the syncs without which nothing acknowledged is lost, and why they are made.
var spared = map[string]string{
	"/data/store": "made before a folder below blobs: another process may have made blobs and not synced its name",
}

// everySyncMatters leaves out each sync in turn: something that was
// acknowledged must then be lost, or the registry not start, at some cut. Of the
// syncs made for one reason some may be covered by a later one before it counts
// (SQLite's log is synced at each of a publish's three commits, two folders of
// blobs are made one after the other), but not all.
func (rec *recording) everySyncMatters() {
	needed, idle := map[string]int{}, map[string]int{}
	for i, c := range rec.calls {
		if i < rec.greeted || c.name != "fsync" && c.name != "fdatasync" || !strings.HasPrefix(c.args[0].path, rec.root+"/data") {
			continue
		}
		role := roleOf(strings.TrimPrefix(c.args[0].path, rec.root))
		if rec.matters(i) {
			needed[role]++
		} else {
			idle[role]++
		}
	}
	for role, n := range idle {
		if needed[role] == 0 && spared[role] == "" {
			rec.t.Errorf("%d syncs of %s change nothing: leave them out, or say why they are made", n, role)
		}
	}
	for role := range spared {
		if needed[role] > 0 {
			rec.t.Errorf("the sync of %s is needed after all", role)
		}
	}
	rec.t.Logf("syncs without which a change is lost: %v; covered by others: %v; %d trees opened", needed, idle, rec.opened)
}

var serial = regexp.MustCompile(`[0-9]{6,}|bafkrei[a-z2-7]+|\b[a-z2-7]{2}$`)

// roleOf names what a path is for.
func roleOf(path string) string { return serial.ReplaceAllString(path, "*") }

// matters tells whether leaving out sync i is ever seen, up to the second acknowledgement after it.
func (rec *recording) matters(i int) bool {
	seen, limit := false, -1
	rec.replay(i, func(at, acks int, m *modelFS) bool {
		if at < i {
			return true
		}
		if limit < 0 {
			limit = acks + 2
		}
		for _, how := range []survival{nothingElse, namesOnly} {
			seen = seen || rec.survives(m.cut(how), acks) != nil
		}
		return !seen && acks < limit
	})
	return seen
}

// firstStartIsFinished cuts the first start at every call and runs the real
// program on what is left: it finishes what was begun, with the same keys once
// they were announced.
func (rec *recording) firstStartIsFinished() {
	program := productBinary(rec.t)
	different := map[uint64]bool{}
	rec.replay(-1, func(i, _ int, m *modelFS) bool {
		if i > rec.greeted {
			return false
		}
		for _, how := range []survival{nothingElse, namesOnly} {
			left := m.cut(how)
			sum := left.sum(rec.seed)
			if different[sum] {
				continue
			}
			different[sum] = true
			if err := rec.startsFrom(program, left); err != nil {
				rec.t.Errorf("power cut after call %d (%s) of the first start, %s: %v", i, rec.calls[i].name, how, err)
			}
		}
		return !rec.t.Failed()
	})
	rec.t.Logf("first start: %d calls, %d different trees started from", rec.greeted, len(different))
}

func (rec *recording) startsFrom(program string, left tree) error {
	folder, err := os.MkdirTemp(scratch(), "aln-cut-*")
	if err != nil {
		rec.t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	if err := left.write(folder); err != nil {
		rec.t.Fatal(err)
	}
	address := steadyAddress(rec.t)
	var output bytes.Buffer
	cmd := exec.Command(program, "serve", "--listen", address, "--data", filepath.Join(folder, "data"))
	cmd.Env = append(os.Environ(), "ALN_HOME="+filepath.Join(folder, "operator", "aln"))
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		rec.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-exited:
			return fmt.Errorf("the server ended: %s", output.String())
		default:
		}
		if resp, err := http.Get("http://" + address + "/healthz"); err == nil {
			said, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(said) != "ok\n" { // it starts
				continue
			}
			cmd.Process.Kill()
			<-exited
			return nil
		}
	}
	cmd.Process.Kill()
	<-exited
	return fmt.Errorf("the server does not answer: %s", output.String())
}
