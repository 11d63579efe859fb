package catalogtest

import (
	"fmt"
	"testing"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

// testStates asks for more keys than one statement takes.
func testStates(t *testing.T, db *catalog.DB) {
	const many = 600
	grow(t, db, func(tx *catalog.Tx, idx int64) error {
		for i := range many {
			if err := tx.PutState(t.Context(), fmt.Sprint("key/", i), idx, fmt.Append(nil, "old ", i)); err != nil {
				return err
			}
		}
		return nil
	})
	set(t, db, "key/1", "")
	set(t, db, "key/599", "new")
	keys := []string{"none", "key", "key/%"}
	for i := range many {
		keys = append(keys, fmt.Sprint("key/", i))
	}
	for before, want := range map[int64][3]string{0: {"", "", ""}, 1: {"old 1", "old 2", "old 599"}, 2: {"", "old 2", "old 599"}, always: {"", "old 2", "new"}} {
		found, err := db.States(t.Context(), keys, before)
		if err != nil || before > 0 && len(found) != many || before == 0 && len(found) != 0 {
			t.Fatalf("as of %d: %d values, %v", before, len(found), err)
		}
		if got := [3]string{string(found["key/1"]), string(found["key/2"]), string(found["key/599"])}; got != want {
			t.Errorf("as of %d: %q, not %q", before, got, want)
		}
	}
	update(t, db, func(tx *catalog.Tx) error {
		for _, c := range []struct {
			key   string
			idx   int64
			there bool
		}{{"key/2", 0, true}, {"key/2", 1, false}, {"none", 0, false}} {
			if done, err := tx.RederiveState(t.Context(), c.key, c.idx, []byte("derived anew")); done != c.there || err != nil {
				t.Errorf("%s at %d is derived anew: %t, %v", c.key, c.idx, done, err)
			}
		}
		return nil
	})
	if found, err := db.States(t.Context(), []string{"key/1", "key/2", "none"}, always); err != nil || len(found) != 2 || string(found["key/2"]) != "derived anew" || len(found["key/1"]) > 0 {
		t.Errorf("what was derived anew: %q, %v", found, err)
	}
	if found, err := db.States(t.Context(), nil, always); err != nil || len(found) != 0 {
		t.Errorf("of no keys: %v, %v", found, err)
	}
}
