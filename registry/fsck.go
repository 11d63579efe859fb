package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// FsckOptions say what Fsck does beside looking.
type FsckOptions struct {
	// Inventory lists what Config.Blobs holds.
	Inventory storage.Inventory
	// Begun: the keys say that they have begun a log, so that there must be one.
	Begun bool
	// Lost is why there is no Config.Catalog to look at, which is a finding, too.
	Lost error
	// Quick: of the bytes of versions, and of crates that are held, only that they are there;
	// index lines are not derived.
	Quick bool
	// Repair adds what is missing and follows from what is signed or hashed, and lets go of
	// what is held of other registries and damaged. It changes and removes nothing else.
	Repair bool
	// Temp is the folder for the replayed catalog, which is about as large as the one in
	// use, "" for the system's.
	Temp string
	// Found is called with each finding.
	Found    func(Finding)
	Progress Progress
}

// Finding is one thing that is not as it should be.
type Finding struct {
	// Code is one of Checks, for ever.
	Code string `json:"code"`
	// What is the thing: an entry, an object's key, a blob's CID, a row's key.
	What string `json:"what"`
	// Detail says what is wrong with it.
	Detail string `json:"detail"`
	// Suffers are the artifacts, members or grants that it is needed for, as far as they
	// are known; none for what all of the log needs.
	Suffers []string `json:"suffers"`
	// Do is what mends it.
	Do string `json:"do"`
	// Repaired: it has been mended.
	Repaired bool `json:"repaired"`
}

// Fscked is what Fsck saw.
type Fscked struct {
	// Size is what was published at the beginning, with its Root; Pending entries above
	// it were in the catalog, and are published by the next change or start.
	Size    int64
	Root    tlog.Hash
	Pending int64
	// Replayed entries were compared with the catalog's state: fewer than Size where an
	// entry, or what it brings, is lost.
	Replayed int64
	// Blobs were listed, of Bytes in all; Unreferenced of them no entry refers to, and they are
	// not held of another registry.
	Blobs, Bytes                    int64
	Unreferenced, UnreferencedBytes int64
	// Found counts findings by their code, Repaired those that were mended. Found of
	// FsckOptions is told of the first thousand of each code.
	Found    map[string]int64
	Repaired int64
}

// Clean reports whether nothing was found, or nothing that was not mended.
func (f Fscked) Clean() bool { return f.total() == f.Repaired }

// Unreadable counts what could not be read.
func (f Fscked) Unreadable() int64 { return f.Found[codeUnreadable] }

func (f Fscked) total() (n int64) {
	for _, count := range f.Found {
		n += count
	}
	return n
}

// mostTold is how many findings of one code are told of.
const mostTold = 1000

// fsck is a look at a registry.
type fsck struct {
	Config
	FsckOptions
	done Fscked
	// replay is what the log derives: a registry over a catalog of its own.
	replay *Registry
	tree   int64 // entries whose hashes the replay has
	// stopped: the entry done.Replayed could not be replayed.
	stopped bool
	// proved: the entries hash to a root that the log has signed.
	proved bool
	// names are what entries refer to.
	names *spill
	// told are blobs that findings have named already; skipped are entries whose index
	// line the replay does not know.
	told    map[string]bool
	skipped map[int64]bool
	// note is what the catalog says is published; noteRoot the signed root that was believed.
	note []byte
	// largest is the size of the largest checkpoint that is stored.
	largest int64
	// lacking are where the pages begin that have an entry whose object is missing.
	lacking []int64
}

// Fsck holds catalog, log and blobs against each other, in both directions, as of
// what is published at its beginning: what changes meanwhile is no finding, so it may run beside
// servers. Entries are believed when they hash to a root that the log has signed; state,
// index lines and rows that find versions are compared with a replay of them. An
// error says that it could not be looked, or not to the end: what was found until then is found.
func Fsck(ctx context.Context, c Config, o FsckOptions) (Fscked, error) {
	f := &fsck{Config: c, FsckOptions: o, told: map[string]bool{}, skipped: map[int64]bool{}}
	f.done.Found = map[string]int64{}
	folder, err := os.MkdirTemp(o.Temp, "aln-fsck-")
	if err != nil {
		return f.done, fmt.Errorf("make a temporary folder (TMPDIR says where): %w", err)
	}
	defer os.RemoveAll(folder)
	replayed, err := catalog.OpenSQLite(ctx, filepath.Join(folder, "replay.db"))
	if err != nil {
		return f.done, err
	}
	defer replayed.Close()
	if f.names, err = newSpill(folder); err != nil {
		return f.done, err
	}
	defer f.names.Close()
	replay := c
	replay.Catalog = replayed
	f.replay = offline(replay)
	err = f.run(ctx, folder)
	return f.done, err
}

func (f *fsck) run(ctx context.Context, folder string) error {
	if absent, err := f.absent(ctx); err != nil || absent {
		return err
	}
	for _, step := range []func(context.Context) error{
		f.begin, f.checkEntries, f.checkRoot, f.checkCheckpoints, f.checkBeyond, f.checkCatalog, f.repairObjects, f.checkHeld,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return f.checkInventory(ctx, folder)
}

// absent tells once where nothing of the log is in blob storage, though there must be
// something, instead of telling of every thing that is not there.
func (f *fsck) absent(ctx context.Context) (bool, error) {
	head := int64(0)
	if f.Catalog != nil { // before blob storage, which is written first
		ends, err := f.Catalog.Ends(ctx)
		if errors.Is(err, catalog.ErrDamaged) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		head = max(ends.Head, ends.Entries)
	}
	logged, err := HasLog(ctx, f.Blobs)
	if err != nil {
		return false, err
	}
	if logged {
		return false, CheckOrigin(ctx, f.Config)
	}
	if head > 0 { // one with blobs is this registry's, perhaps, and has lost its log
		stored, err := hasBlobs(ctx, f.Inventory)
		if err != nil || stored {
			return false, err
		}
	}
	if head > 0 || f.Begun {
		if f.done.Root, err = translog.TreeHash(0, nil); err != nil {
			return false, err
		}
		f.found(codeLogAbsent, "log", fmt.Sprintf("the catalog has %d entries, blob storage none", head))
		return true, nil
	}
	return false, nil
}

// begin finds out up to where the log is looked at.
func (f *fsck) begin(ctx context.Context) error {
	if f.Catalog == nil {
		code, detail := codeCatalogBehind, "there is none"
		if errors.Is(f.Lost, catalog.ErrDamaged) {
			code, detail = codeCatalogDamaged, f.Lost.Error()
		}
		f.found(code, "catalog", detail)
	} else if err := f.catalogSays(ctx); err != nil {
		return err
	}
	if f.Catalog != nil {
		return nil
	}
	// Blob storage alone: all that its largest checkpoint covers.
	largest, err := f.largestCheckpoint(ctx)
	f.done.Size = largest
	return err
}

// catalogSays reads what is published, and where the catalog ends.
func (f *fsck) catalogSays(ctx context.Context) error {
	size, note, err := f.Catalog.Published(ctx)
	if err != nil {
		return f.orLost(err)
	}
	ends, err := f.Catalog.Ends(ctx)
	if err != nil {
		return f.orLost(err)
	}
	head := max(ends.Head, ends.Entries)
	f.note = note
	f.done.Size = min(size, head)
	f.done.Pending = head - f.done.Size
	if size > head {
		f.found(codePublished, "published row", fmt.Sprintf("it says %d entries, of which the catalog has %d", size, head))
	}
	if ends.Head != ends.Entries && ends.Entries >= f.done.Size {
		f.found(codeCatalogHead, "head row", fmt.Sprintf("it says %d entries, their rows end at %d", ends.Head, ends.Entries))
	}
	if want := tlog.StoredHashCount(ends.Entries); ends.Hashes != want && ends.Hashes >= tlog.StoredHashCount(f.done.Size) && ends.Entries >= f.done.Size {
		f.found(codeLogHash, "log hashes", fmt.Sprintf("they end at %d, those of %d entries at %d", ends.Hashes, ends.Entries, want))
	}
	return nil
}

// lostCatalog gives the catalog up where err is of a damaged one, which is told once.
func (f *fsck) lostCatalog(err error) bool {
	if !errors.Is(err, catalog.ErrDamaged) {
		return false
	}
	if f.Catalog != nil {
		f.found(codeCatalogDamaged, "catalog", err.Error())
	}
	f.Catalog, f.note = nil, nil
	return true
}

// orLost is err, nil where it says that the catalog is lost, which was told.
func (f *fsck) orLost(err error) error {
	if f.lostCatalog(err) {
		return nil
	}
	return err
}

// largestCheckpoint is the size of the largest one that is stored, 0 for none.
func (f *fsck) largestCheckpoint(ctx context.Context) (largest int64, err error) {
	for key, err := range f.Blobs.List(ctx, translog.CheckpointPrefix, "") {
		if err != nil {
			return 0, err
		}
		if size, err := translog.ParseCheckpointKey(key); err == nil {
			largest = size
		}
	}
	return largest, nil
}

// found tells of a finding.
func (f *fsck) found(code, what, detail string, suffers ...string) {
	f.tell(Finding{Code: code, What: what, Detail: detail, Suffers: suffers})
}

// mended tells of a finding that was mended.
func (f *fsck) mended(code, what, detail string, suffers ...string) {
	f.done.Repaired++
	f.tell(Finding{Code: code, What: what, Detail: detail, Suffers: suffers, Repaired: true})
}

func (f *fsck) tell(found Finding) {
	f.done.Found[found.Code]++
	if f.done.Found[found.Code] > mostTold || f.Found == nil {
		return
	}
	if found.Suffers == nil {
		found.Suffers = []string{}
	}
	found.Do = checkOf(found.Code).Do
	f.Found(found)
}
