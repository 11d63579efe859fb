package registry

import (
	"sync"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// freshBytes bounds the snapshots that are kept from their import until somebody reads them.
const freshBytes = 8 << 20

// snapshots keeps index files, as read, of which an import was just published: who had it
// imported asks for it next, and need not wait for storage to give it back.
type snapshots struct {
	mu    sync.Mutex
	fresh lru
}

func newSnapshots() *snapshots { return &snapshots{fresh: newLRU(freshBytes)} }

func snapshotThing(id storage.CID) thing { return thing{family: snapshotFamily, name: id.String()} }

// lineBytes is about what a line of an index file takes, beside its text.
const lineBytes = 160

// keep keeps file, whose bytes are those of id and are not changed any more, where there is room.
func (s *snapshots) keep(id storage.CID, size int, file cargo.UpstreamFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh.put(snapshotThing(id), found{file, int64(size + lineBytes*len(file.Lines))})
}

// take returns what is kept of id, once.
func (s *snapshots) take(id storage.CID) (cargo.UpstreamFile, bool) {
	if s == nil {
		return cargo.UpstreamFile{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.fresh.get(snapshotThing(id))
	if !ok {
		return cargo.UpstreamFile{}, false
	}
	s.fresh.remove(snapshotThing(id))
	return f.value.(cargo.UpstreamFile), true
}
