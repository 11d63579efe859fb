package cratesioproxy

import (
	"io"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// handOverAfter is how long a crate that is stored is still read from the spool: nearly all who
// read it have all of it by then.
const handOverAfter = 2 * time.Second

// storedBlob is a blob that several may read at once.
type storedBlob interface {
	storage.Blob
	io.ReaderAt
}

// ReadAt implements io.ReaderAt over what has come of the crate, for readers.
func (d *download) ReadAt(p []byte, at int64) (int, error) {
	d.reading.RLock()
	defer d.reading.RUnlock()
	d.mu.Lock()
	var from io.ReaderAt = d.file
	if d.stored != nil {
		from = d.stored
	}
	d.mu.Unlock()
	return from.ReadAt(p, at)
}

// handOver has who still reads a crate that is stored by now read it from there, however slowly, so
// that its room in the spool is for others. Where it cannot be opened, since it was evicted meanwhile
// for one, the spool has it for as long as somebody reads.
func (d *download) handOver() {
	p := d.u.proxy
	if p.Sleep(p.ctx, handOverAfter) != nil || !d.isRead() {
		return
	}
	blob, err := p.Blobs.Open(p.ctx, d.want.ID)
	if err != nil {
		p.Log.Warn("a crate that is stored is not read from there", "upstream", d.u.setting.Name, "crate", d.want.Name, "version", d.want.Version, "error", err)
		return
	}
	stored, ok := blob.(storedBlob)
	if !ok || !d.readFrom(stored) {
		blob.Close()
	}
}

// isRead reports whether anybody reads from the spool.
func (d *download) isRead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file != nil
}

// readFrom has what is stored read in place of the spool, and is false where nobody reads any more.
func (d *download) readFrom(stored storedBlob) bool {
	d.reading.Lock()
	defer d.reading.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil || stored.Size() != d.written {
		return false
	}
	d.release()
	d.stored = stored
	return true
}
