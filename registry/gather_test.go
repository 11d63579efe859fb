package registry

import (
	"testing"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// What is attached to a batch is parsed while the head is locked: large index files do not
// all go into one.
func TestABatchTakesOnlySoMuchThatIsAttached(t *testing.T) {
	for name, c := range map[string]struct{ bytes, want int }{
		"small": {1 << 10, 10},
		"large": {6 << 20, 3},
		"huge":  {16 << 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Registry{queue: make(chan *submission, 10)}
			raw := make([]byte, c.bytes)
			for range 9 {
				r.queue <- &submission{attachments: state.Attachments{storage.CIDOf(nil): raw}}
			}
			if got := len(r.gather(&submission{attachments: state.Attachments{storage.CIDOf(nil): raw}})); got != c.want {
				t.Errorf("a batch has %d records, want %d", got, c.want)
			}
		})
	}
}
