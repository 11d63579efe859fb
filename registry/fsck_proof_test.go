package registry

import (
	"os"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// forge writes the entry at index anew, as if it had been entered a second later, and
// everything that hangs on it in catalog and blob storage but what is signed.
func (a *archive) forge(t *testing.T, index int64) {
	t.Helper()
	path := a.object(translog.EntryKey(index))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := translog.ParseEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	e.Time = e.Time.Add(time.Second)
	if raw, err = e.Marshal(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	leaf := translog.LeafHash(raw)
	a.sql("UPDATE entry SET bytes = ?, leaf_hash = ? WHERE idx = ?", raw, leaf[:], index)
	a.sql("UPDATE log_hash SET hash = ? WHERE position = ?", leaf[:], translog.LeafPosition(index))
}

// Where the entries do not hash to what was signed nothing is repaired, whatever follows
// from them.
func TestFsckRepairsNothingThatIsNotProved(t *testing.T) {
	a := newArchive(t)
	a.forge(t, atTwo)
	removeFile(t, a.object(translog.EntryKey(atShard)))
	removeFile(t, a.object(translog.CheckpointKey(a.size)))
	a.sql("DELETE FROM version_cid")
	a.sql("DELETE FROM crate_line WHERE idx = 3")
	before := contents(t, a)
	found, done := a.fsck(repairing)
	if done.Repaired > 0 || contents(t, a) != before || done.Clean() {
		t.Errorf("%q, %+v", found, done)
	}
	for _, code := range []string{codeLogUnproved, codeObjectMissing, codeNoteMissing, codeVersionMissing, codeLineMissing, codeLogHash} {
		if done.Found[code] == 0 {
			t.Errorf("%s is not among %q", code, found)
		}
	}
	if done.Found[codePublished] > 0 {
		t.Errorf("what is published is called wrong: %q", found)
	}
}

// A checkpoint that this log has signed for other entries is a fork, wherever it lies.
func TestFsckFindsForks(t *testing.T) {
	a := newArchive(t)
	keys, err := a.keys.signers(state.Settings{Registry: record.Registry{LogKeys: []string{a.keys.logs[0].multikey}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{5, a.size} {
		note, err := translog.Sign(translog.Checkpoint{Origin: string(a.keys.DID()), Size: size, Root: translog.LeafHash(nil)}, keys, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b := a.another(t)
		if err := os.WriteFile(b.object(translog.CheckpointKey(size)), note, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, done := b.fsck(repairing); !slices.Equal(found, []string{"fork: " + translog.CheckpointKey(size)}) || done.Clean() {
			t.Errorf("%d: %q", size, found)
		}
		if size < a.size {
			continue
		}
		b = a.another(t)
		b.sql("UPDATE published SET checkpoint = ?", note)
		if found, _ := b.fsck(repairing); !slices.Equal(found, []string{"published-row: published row"}) {
			t.Errorf("published: %q", found)
		}
	}
}
