package registry

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// archive is a registry that is stopped, whose log has a record of every type that
// brings blobs.
type archive struct {
	*world
	size                                               int64
	one, two, shard, grant, document, intent, manifest storage.CID
	records                                            []storage.CID
	yanked                                             int64
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	c := newCourt(t)
	a := &archive{world: c.w}
	host := actor{t, c.r, newKey(t), did.URL{DID: "did:web:host.example", Fragment: "key-1"}}
	document := host.document(t)
	a.document = storage.CIDOf(document)
	c.admin.enter(record.MemberSubject(host.id.DID), &record.Member{
		DIDDocument: cidOf(document), Roles: []string{state.RolePublisher}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
	}, document)
	c.publish("demo-one")
	c.publish("demo-two")
	a.one, a.two = storage.CIDOf(newUpload("demo-one").crate), storage.CIDOf(newUpload("demo-two").crate)
	a.yanked = c.admin.enter(subjectOf(t, record.KindCrate, "demo-one"), &record.Yank{Yanked: true}).Index
	a.shard = c.publishShard(record.KindALNShard, "list", []byte(a.one.Hex()+"\n"))
	a.grant = c.grant(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &a.shard })
	c.quarantine(c.admin, "some", func(q *particle.QuarantineRule) { q.Match[0].Names = []string{"bad-*"} })
	other := c.member(particle.TierCoreStakeholder)
	a.intent = c.changeOwners("demo-two", other.id.DID)
	manifest := []byte("bytes of a manifest")
	host.publish(subjectOf(t, record.KindManifest, "notes"), manifest)
	a.manifest = storage.CIDOf(manifest)
	a.size = c.r.Size()
	rows, err := c.w.config.Catalog.Entries(t.Context(), 0, a.size)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		a.records = append(a.records, row.Record)
	}
	c.w.closeAll(c.r)
	return a
}

func subjectOf(t testing.TB, kind record.Kind, name string) record.Subject {
	t.Helper()
	s, err := record.VersionSubject(kind, name, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// changeOwners makes d an owner of a crate of the admin's, as cargo does it.
func (c *court) changeOwners(name string, d did.DID) (intent storage.CID) {
	c.t.Helper()
	head, _, err := state.HeadOf(c.r.visible(c.t.Context()), "crate/"+strings.ReplaceAll(name, "-", "_"))
	if err != nil {
		c.t.Fatal(err)
	}
	a, _, err := state.ArtifactOf(c.r.visible(c.t.Context()), record.KindCrate, name)
	if err != nil {
		c.t.Fatal(err)
	}
	subject, err := record.ArtifactSubject(record.KindCrate, name)
	if err != nil {
		c.t.Fatal(err)
	}
	now := c.now().UTC()
	rec, err := record.Sign(record.Draft{Subject: subject, Body: &record.OwnIntent{}, Header: record.Header{
		Registry: c.r.Origin(), IssuedAt: now, Expires: now.Add(100e9), Prev: head.Record, By: a.Owners[0].Record,
	}}, c.admin.key.Signer(c.admin.id))
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := c.admin.session(particle.ScopePublish, rec.ID())
	if err != nil {
		c.t.Fatal(err)
	}
	asker, err := c.r.Authenticate(c.t.Context(), token)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.r.ChangeOwners(c.t.Context(), asker, name, rec.Envelope(), []did.DID{d}, nil); err != nil {
		c.t.Fatal(err)
	}
	return rec.CID()
}

// another is the same archive in a folder of its own.
func (a *archive) another(t *testing.T) *archive {
	t.Helper()
	other := *a
	other.world = a.copied(t)
	return &other
}

func (a *archive) object(key string) string {
	return filepath.Join(a.folder, "store", filepath.FromSlash(key))
}

func (a *archive) blob(id storage.CID) string {
	name := id.String()
	return filepath.Join(a.folder, "store", "blobs", name[len(name)-3:len(name)-1], name)
}

// database is the catalog behind everybody's back.
func (a *archive) database() *sql.DB {
	a.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(a.folder, "catalog.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		a.t.Fatal(err)
	}
	return db
}

// exec changes the catalog behind everybody's back, and says how many rows.
func (a *archive) exec(statement string, args ...any) int64 {
	a.t.Helper()
	db := a.database()
	result, err := db.Exec(statement, args...)
	if err = errors.Join(err, db.Close()); err != nil {
		a.t.Fatal(err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// sql is exec that has to change something.
func (a *archive) sql(statement string, args ...any) {
	a.t.Helper()
	if a.exec(statement, args...) == 0 {
		a.t.Fatalf("%s changed nothing", statement)
	}
}

// count is what a query counts.
func (a *archive) count(query string) (n int64) {
	a.t.Helper()
	db := a.database()
	if err := errors.Join(db.QueryRow(query).Scan(&n), db.Close()); err != nil {
		a.t.Fatal(err)
	}
	return n
}

// fsck looks, and returns code and what of each finding, sorted.
func (a *archive) fsck(change func(*FsckOptions)) (found []string, done Fscked) {
	a.t.Helper()
	ctx := context.Background()
	o := FsckOptions{Temp: a.t.TempDir(), Found: func(f Finding) {
		text := f.Code + ": " + f.What
		if len(f.Suffers) > 0 {
			text += " (" + strings.Join(f.Suffers, ", ") + ")"
		}
		if f.Repaired {
			text += " repaired"
		}
		found = append(found, text)
		if f.Do == "" || f.Detail == "" {
			a.t.Errorf("%+v does not say what is wrong and what to do", f)
		}
	}}
	store, err := disk.Open(filepath.Join(a.folder, "store"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer store.Close()
	o.Inventory = store
	c := Config{Blobs: store, Keys: a.keys}
	c.Catalog, o.Lost = catalog.AttachSQLite(ctx, filepath.Join(a.folder, "catalog.db"))
	if o.Lost == nil {
		defer c.Catalog.Close()
	} else if !errors.Is(o.Lost, catalog.ErrDamaged) && !errors.Is(o.Lost, fs.ErrNotExist) {
		a.t.Fatal(o.Lost)
	}
	if change != nil {
		change(&o)
	}
	if done, err = Fsck(ctx, c, o); err != nil {
		a.t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Temp); err != nil || len(left) > 0 {
		a.t.Errorf("%v is left behind, %v", left, err)
	}
	slices.Sort(found)
	return found, done
}

func quickly(o *FsckOptions)   { o.Quick = true }
func repairing(o *FsckOptions) { o.Repair = true }

func TestFsckOfAWholeRegistryFindsNothing(t *testing.T) {
	a := newArchive(t)
	for name, change := range map[string]func(*FsckOptions){"fully": nil, "quickly": quickly, "repairing": repairing} {
		found, done := a.fsck(change)
		if len(found) > 0 || !done.Clean() || done.Size != a.size || done.Replayed != a.size || done.Pending != 0 || done.Unreferenced != 0 {
			t.Errorf("%s: %q, %+v", name, found, done)
		}
		if done.Blobs < a.size || done.Bytes == 0 || done.Root.String() == "" {
			t.Errorf("%s: %+v", name, done)
		}
	}
}

// harm is something done to a registry, and what fsck has to say of it.
type harm struct {
	do func(t *testing.T, a *archive)
	// finds is what is found, mends whether --repair mends all of it; quick is what a
	// quick look finds, nil for the same.
	finds func(a *archive) []string
	mends bool
	quick []string
}

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func flipByte(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func cutShort(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
}

// says makes a finding of a fixed text.
func says(texts ...string) func(*archive) []string { return func(*archive) []string { return texts } }

// Entries of an archive.
const (
	atHost, atOne, atTwo, atShard, atGrant, atOwn, atManifest = 2, 3, 4, 6, 7, 10, 11
)

// ofBlob are the three ways to lose a blob.
func ofBlob(harms map[string]harm, name, missing, corrupt, suffers string, of func(a *archive) storage.CID, looked bool) {
	for how, f := range map[string]func(*testing.T, string){"gone": removeFile, "flipped": flipByte, "truncated": cutShort} {
		code := corrupt
		if how == "gone" {
			code = missing
		}
		h := harm{
			do:    func(t *testing.T, a *archive) { f(t, a.blob(of(a))) },
			finds: func(a *archive) []string { return []string{code + ": blob " + of(a).String() + " (" + suffers + ")"} },
		}
		if how != "gone" && looked {
			h.quick = []string{}
		}
		harms[name+" "+how] = h
	}
}

func harms() map[string]harm {
	last := func(a *archive) string { return translog.CheckpointKey(a.size) }
	all := map[string]harm{
		"an entry object gone": {
			do:    func(t *testing.T, a *archive) { removeFile(t, a.object(translog.EntryKey(atOne))) },
			finds: says("entry-object-missing: log/entry/0000000000000003 (crate/demo-one@1.0.0)"), mends: true,
		},
		"all entry objects gone": {
			do: func(t *testing.T, a *archive) {
				if err := os.RemoveAll(a.object("log/entry")); err != nil {
					t.Fatal(err)
				}
			},
			finds: nil, mends: true,
		},
		"an entry object flipped": {
			do:    func(t *testing.T, a *archive) { flipByte(t, a.object(translog.EntryKey(atOne))) },
			finds: says("entry-object: log/entry/0000000000000003 (crate/demo-one@1.0.0)"),
		},
		"an entry object truncated": {
			do:    func(t *testing.T, a *archive) { cutShort(t, a.object(translog.EntryKey(atOne))) },
			finds: says("entry-object: log/entry/0000000000000003 (crate/demo-one@1.0.0)"),
		},
		"a stray among the entries": {
			do:    func(t *testing.T, a *archive) { flipNew(t, a.object("log/entry/note")) },
			finds: says("log-stray: log/entry/note"),
		},
		"the last checkpoint gone": {
			do:    func(t *testing.T, a *archive) { removeFile(t, a.object(last(a))) },
			finds: func(a *archive) []string { return []string{"checkpoint-missing: " + last(a)} }, mends: true,
		},
		"the last checkpoint flipped": {
			do:    func(t *testing.T, a *archive) { flipByte(t, a.object(last(a))) },
			finds: func(a *archive) []string { return []string{"checkpoint: " + last(a)} },
		},
		"an old checkpoint truncated": {
			do:    func(t *testing.T, a *archive) { cutShort(t, a.object(translog.CheckpointKey(4))) },
			finds: says("checkpoint: log/checkpoint/0000000000000004"),
		},
		"a checkpoint of another size": {
			do: func(t *testing.T, a *archive) {
				raw, err := os.ReadFile(a.object(translog.CheckpointKey(4)))
				if err == nil {
					err = os.WriteFile(a.object(translog.CheckpointKey(5)), raw, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			finds: says("checkpoint: log/checkpoint/0000000000000005"),
		},
		"an entry in neither": {
			do: func(t *testing.T, a *archive) {
				removeFile(t, a.object(translog.EntryKey(atManifest)))
				a.sql("DELETE FROM entry WHERE idx = ?", atManifest)
			},
			finds: says("log-lost: entry 11 (manifest/notes@1.0.0)"),
		},
		"a stray among the blobs": {
			do:    func(t *testing.T, a *archive) { flipNew(t, a.object("blobs/README")) },
			finds: func(a *archive) []string { return []string{"stray: blob storage"} },
		},
	}
	ofBlob(all, "a record", codeRecordMissing, codeRecord, "crate/demo_two@1.0.0", func(a *archive) storage.CID { return a.records[atTwo] }, false)
	ofBlob(all, "the first record", codeRecordMissing, codeRecord, "registry", func(a *archive) storage.CID { return a.records[0] }, false)
	ofBlob(all, "a document", codeAttachedMissing, codeAttached, "member/did%3Aweb%3Ahost.example", func(a *archive) storage.CID { return a.document }, false)
	ofBlob(all, "an intent", codeAttachedMissing, codeAttached, "crate/demo-two", func(a *archive) storage.CID { return a.intent }, false)
	all["a grant gone"] = harm{
		do: func(t *testing.T, a *archive) { removeFile(t, a.blob(a.grant)) },
		finds: func(a *archive) []string {
			return []string{"attachment-missing: blob " + a.grant.String() + " (grant/" + a.grant.String() + ")"}
		},
	}
	ofBlob(all, "a crate", codeBytesMissing, codeBytes, "crate/demo-one@1.0.0", func(a *archive) storage.CID { return a.one }, true)
	ofBlob(all, "a shard", codeBytesMissing, codeBytes, "aln-shard/list@1.0.0", func(a *archive) storage.CID { return a.shard }, true)
	return all
}

// flipNew writes a file that does not belong.
func flipNew(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rowHarms are those that are done to the catalog.
func rowHarms() map[string]harm {
	row := func(finds string, mends bool, statement string, args ...any) harm {
		return harm{do: func(_ *testing.T, a *archive) { a.sql(statement, args...) }, finds: says(finds), mends: mends}
	}
	one := "version by its bytes " + storage.CIDOf(newUpload("demo-one").crate).String() + " (crate/demo_one@1.0.0)"
	return map[string]harm{
		"the head too small":         row("catalog-head: head row", false, "UPDATE head SET size = size - 1"),
		"the head too large":         row("catalog-head: head row", false, "UPDATE head SET size = size + 3"),
		"the head gone":              row("catalog-damaged: catalog", false, "DELETE FROM head"),
		"an entry's bytes":           row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "UPDATE entry SET bytes = CAST(bytes || ' ' AS BLOB) WHERE idx = 3"),
		"an entry's leaf hash":       row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "UPDATE entry SET leaf_hash = randomblob(32) WHERE idx = 3"),
		"an entry's record":          row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "UPDATE entry SET record_cid = (SELECT record_cid FROM entry WHERE idx = 4) WHERE idx = 3"),
		"an entry's record no CID":   row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "UPDATE entry SET record_cid = 'x' WHERE idx = 3"),
		"an entry's identity":        row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "UPDATE entry SET record_id = 'x' WHERE idx = 3"),
		"an entry gone":              row("entry-row: entry 3 (crate/demo-one@1.0.0)", false, "DELETE FROM entry WHERE idx = 3"),
		"the last entry gone":        row("entry-row: entry 11 (manifest/notes@1.0.0)", false, "DELETE FROM entry WHERE idx = 11"),
		"a leaf's hash":              row("log-hash: log hash 4", false, "UPDATE log_hash SET hash = randomblob(32) WHERE position = 4"),
		"an inner hash":              row("log-hash: log hash 6", false, "UPDATE log_hash SET hash = randomblob(32) WHERE position = 6"),
		"a hash gone":                row("log-hash: log hash 6", false, "DELETE FROM log_hash WHERE position = 6"),
		"a hash too many":            row("log-hash: log hashes", false, "INSERT INTO log_hash SELECT MAX(position) + 1, randomblob(32) FROM log_hash"),
		"a value of state":           row("state-row: state of version/crate/demo_one/1.0.0 at entry 5 (crate/demo_one@1.0.0)", false, "UPDATE state SET value = CAST(replace(value, 'true', 'false') AS BLOB) WHERE idx = 5 AND key LIKE 'version/%'"),
		"a row of state gone":        row("state-row: state of artifact/crate/demo_two at entry 4 (crate/demo_two)", false, "DELETE FROM state WHERE idx = 4 AND key = 'artifact/crate/demo_two'"),
		"a row of state too many":    row("state-row: state of version/crate/other/1.0.0 at entry 4 (crate/other@1.0.0)", false, "INSERT INTO state VALUES ('version/crate/other/1.0.0', 4, CAST('{}' AS BLOB))"),
		"settings altered":           row("state-row: state of registry at entry 0 (registry)", false, "UPDATE state SET value = CAST(replace(value, 'admin_threshold\":1', 'admin_threshold\":2') AS BLOB) WHERE key = 'registry'"),
		"an index line":              row("crate-line: index line of entry 3 (crate/demo_one@1.0.0)", false, "UPDATE crate_line SET line = CAST(replace(line, 'demo-one', 'demo-two') AS BLOB) WHERE idx = 3"),
		"an index line's search":     row("crate-line: index line of entry 3 (crate/demo_one@1.0.0)", false, "UPDATE crate_line SET search = 'all' WHERE idx = 3"),
		"an index line gone":         row("crate-line-missing: index line of entry 3 (crate/demo_one@1.0.0)", true, "DELETE FROM crate_line WHERE idx = 3"),
		"an index line too many":     row("crate-line: index line of entry 5 (crate/x@1.0.0)", false, "INSERT INTO crate_line VALUES (5, 'x', '1.0.0', CAST('{}' AS BLOB), '', '', '')"),
		"a version's CID gone":       row("version-cid-missing: "+one, true, "DELETE FROM version_cid WHERE key = 'version/crate/demo_one/1.0.0'"),
		"a version's CID since when": row("version-cid: "+one, false, "UPDATE version_cid SET idx = 5 WHERE key = 'version/crate/demo_one/1.0.0'"),
		"a version's CID too many":   row("version-cid: version by its bytes x (crate/demo_one@1.0.0)", false, "INSERT INTO version_cid VALUES ('x', 'version/crate/demo_one/1.0.0', 4)"),
		"state of no entry":          row("catalog-head: state", false, "INSERT INTO state VALUES ('member/x', 100, CAST('{}' AS BLOB))"),
		"published too much":         row("published-row: published row", false, "UPDATE published SET size = size + 1"),
		"published too little":       row("published-row: published row", false, "UPDATE published SET size = size - 1"),
		"the published note":         row("published-row: published row", false, "UPDATE published SET checkpoint = CAST(replace(checkpoint, '=', 'A') AS BLOB)"),
		"published without a note":   row("published-row: published row", false, "UPDATE published SET checkpoint = x''"),
		"published nothing":          row("catalog-damaged: catalog", false, "DELETE FROM published"),
		"no catalog": {
			do:    func(t *testing.T, a *archive) { removeFile(t, filepath.Join(a.folder, "catalog.db")) },
			finds: says("catalog-behind: catalog"),
		},
		"no database": {
			do: func(t *testing.T, a *archive) {
				if err := os.WriteFile(filepath.Join(a.folder, "catalog.db"), bytes.Repeat([]byte("no database. "), 1000), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			finds: says("catalog-damaged: catalog"),
		},
	}
}

// Whatever is deleted, flipped or truncated is named, and nothing else is; what
// --repair mends is whole afterwards, and what it does not it leaves as it was.
func TestFsckNamesWhatIsWrong(t *testing.T) {
	whole := newArchive(t)
	all := harms()
	for name, h := range rowHarms() {
		all[name] = h
	}
	for name, h := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := whole.another(t)
			h.do(t, a)
			var want []string
			if h.finds != nil {
				want = h.finds(a)
			} else {
				for i := range a.size {
					want = append(want, "entry-object-missing: "+translog.EntryKey(i))
				}
			}
			found, done := a.fsck(nil)
			wantFound(t, h, found, want)
			if done.Clean() || done.Found[strings.SplitN(want[0], ":", 2)[0]] != int64(len(want)) {
				t.Errorf("%+v", done)
			}
			if h.quick != nil {
				want = h.quick
			}
			if !strings.Contains(name, "index line") {
				found, _ = a.fsck(quickly)
				wantFound(t, h, found, want)
			}
			before := contents(t, a)
			found, done = a.fsck(repairing)
			if h.mends {
				if !done.Clean() || len(found) == 0 || !strings.HasSuffix(found[0], " repaired") {
					t.Errorf("repaired is %q, %+v", found, done)
				}
				if found, _ := a.fsck(nil); len(found) > 0 {
					t.Errorf("after the repair: %q", found)
				}
				a.goesOn(t)
			} else if done.Clean() || done.Repaired > 0 || contents(t, a) != before {
				t.Errorf("repaired is %q, %+v", found, done)
			}
		})
	}
}

func wantFound(t *testing.T, h harm, found, want []string) {
	t.Helper()
	if h.finds == nil { // whom each is about does not matter
		for i := range found {
			found[i], _, _ = strings.Cut(found[i], " (")
		}
	}
	if !slices.Equal(found, want) {
		t.Errorf("found\n\t%q, want\n\t%q", found, want)
	}
}

// contents are all bytes of store and catalog.
func contents(t *testing.T, a *archive) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join(a.folder, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %x\n", path, raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(a.folder, "catalog.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return all.String() // it would be made
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range []string{"head", "entry", "log_hash", "state", "crate_line", "version_cid", "published"} {
		rows, err := db.Query("SELECT * FROM " + table)
		if err != nil { // no catalog
			return all.String()
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		for rows.Next() {
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				fmt.Fprintf(&all, "%v ", *v.(*any))
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// goesOn starts the registry again and publishes.
func (a *archive) goesOn(t *testing.T) {
	t.Helper()
	w := &world{t: t, folder: a.folder, keys: a.keys, admin: a.admin}
	r := w.start()
	defer w.closeAll(r)
	if _, err := w.publish(r, newUpload("later")); err != nil {
		t.Error(err)
	}
	if r.Size() != a.size+1 {
		t.Errorf("%d entries", r.Size())
	}
}
