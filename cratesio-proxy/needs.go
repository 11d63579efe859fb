package cratesioproxy

import (
	"context"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Evidence is what the registry does with what upstreams said. All methods may be
// called concurrently.
type Evidence interface {
	// Import signs and enters that upstream showed snapshot, byte for byte, as the index
	// file of crate (as it was asked, in lower case), and returns once that is published:
	// Known tells of it then. An empty snapshot says that upstream no longer has what is
	// known. A snapshot that cannot be that crate's index file is an error that matches
	// ErrSnapshot, and nothing is entered. One that is the last known already succeeds.
	// It may be repeated after any error.
	Import(ctx context.Context, upstream, crate string, snapshot []byte) (Imported, error)
	// Known tells, from memory as a rule, what was last published of a crate by its
	// canonical name; false where nothing was.
	Known(ctx context.Context, upstream, canonical string) (Known, bool, error)
	// PrivateName reports whether a name, in canonical form, is one of those that are
	// never asked of an upstream.
	PrivateName(canonical string) bool
}

// Imported is what upstream should not have done, and is in this snapshot for the first time.
type Imported struct {
	// Changed are versions with another digest than the first that was seen of them.
	Changed []Difference
	// Altered are versions with that digest whose line resolves to something else than it first did.
	Altered []Difference
	// Dropped are versions that are not listed any more.
	Dropped []Difference
}

// Difference is a version of which an index file says something else than was first said. Detail
// says in words what, and where both stand: it is fit to be shown, and may be "".
type Difference struct{ Version, Detail string }

// Known is what is known of an upstream's crate.
type Known struct {
	// Name is spelled as upstream does.
	Name string
	// Snapshot is the last index file that was imported, Seen when that was, by whichever
	// replica: upstream said so a moment before.
	Snapshot storage.CID
	Seen     time.Time
	// Versions is how many are known of it, and Claims how many other digests were said of them: each
	// import writes them all anew.
	Versions, Claims int
}

// Facts keeps what is worth keeping and is no evidence. All methods may be called
// concurrently and repeated after an error; what is lost costs a request.
type Facts interface {
	// File returns what is noted of an index file, false where nothing is.
	File(ctx context.Context, upstream, name string) (File, bool, error)
	// PutFiles notes index files, each in place of what was noted of it.
	PutFiles(ctx context.Context, files []File) error
	// HasBlob reports whether a blob is noted as one that upstream itself served.
	HasBlob(ctx context.Context, upstream string, id storage.CID) (bool, error)
	// PutBlobs notes blobs that are stored durably. unheld says why of those that cannot be
	// noted, after an error nothing is known of any. Until it returns, they may be taken for
	// garbage: ErrGone is that of one that was, and has to be stored anew.
	PutBlobs(ctx context.Context, list []Blob) (unheld map[storage.CID]error, err error)
	// Settling is ErrSettling for a blob that cannot be noted for a while, however often it
	// is stored, and nil for all others.
	Settling(ctx context.Context, id storage.CID) error
	// UsedBlobs notes that blobs were used; those that are none of an upstream's are passed over.
	UsedBlobs(ctx context.Context, ids []storage.CID, at time.Time) error
	// PutAlarm notes an alarm; the oldest beyond a bound are forgotten.
	PutAlarm(ctx context.Context, a Alarm) error
}

// File is what is noted of an index file: how to ask whether it changed, and when
// that was last asked.
type File struct {
	Upstream, Name     string // Name in lower case, as it was asked
	ETag, LastModified string // as upstream sent them, "" where it did not
	// IndexURL is the index that said all this: of another, a mirror of the same perhaps, it
	// tells nothing.
	IndexURL string
	// Snapshot is what the validators are of: they are used while that is the last that
	// the registry knows.
	Snapshot storage.CID
	// Status is what upstream answered last: 200, or 404, 410 or 451, which count only for
	// what was there before.
	Status int
	// Checked is when it last answered so; of others than 200, when it first did.
	Checked time.Time
}

// Blob is a crate that is held: of Upstream, and of every other one for which it is noted.
type Blob struct {
	ID                      storage.CID
	Upstream, Name, Version string
	Size                    int64 // bytes
	Fetched                 time.Time
}

// Kinds of alarms.
const (
	// AlarmMismatch: the bytes of a crate do not hash to what the index says of it.
	AlarmMismatch = "mismatch"
	// AlarmSnapshot: an index file is none of the crate it was asked for, or beyond all bounds.
	AlarmSnapshot = "snapshot"
	// AlarmChanged: a version has another digest than the first that was seen of it.
	AlarmChanged = "changed"
	// AlarmAltered: a version has the digest that was first seen of it, and another line:
	// other dependencies, or other features.
	AlarmAltered = "altered"
	// AlarmDropped: a version is not listed any more.
	AlarmDropped = "dropped"
	// AlarmVanished: upstream no longer has a crate that it had.
	AlarmVanished = "vanished"
	// AlarmExcess: its index files change more than is entered within a day.
	AlarmExcess = "excess"
)

// Alarm is something that an upstream should never do.
type Alarm struct {
	Upstream, Name string
	Version        string // "" where it is of no one version
	Kind, Detail   string
	At             time.Time
}
