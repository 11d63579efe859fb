package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// ErrLogKey: the key file lacks the key that the log's settings say signs now.
var ErrLogKey = errors.New("the key that signs the log is not in the registry's key file")

// logKey is a log key with its public half as settings state it.
type logKey struct {
	id       string // kid in the key file
	multikey string
	key      translog.LogKey
}

// isLogKey reports whether kid names a log key of the registry's key file.
func isLogKey(kid string) bool { return kid == logKeyID || strings.HasPrefix(kid, logKeyID+"-") }

func newLogKey(named did.NamedKey) (logKey, error) {
	private, ok := named.Key.Ed25519()
	if !ok {
		return logKey{}, errors.New("the log key is not Ed25519")
	}
	key, err := translog.NewLogKey(private)
	return logKey{id: named.ID, multikey: named.Key.Public().Multikey(), key: key}, err
}

// AddLogKey makes a log key in the registry's key file at path, beside those that
// are there, and returns its public half as a Multikey. It signs nothing before a
// registry record puts it first in log_keys and the server was started with it.
// Nobody else may change the file meanwhile.
func AddLogKey(path string, rand io.Reader) (multikey string, err error) {
	keys, err := readKeys(path)
	if err != nil {
		return "", err
	}
	key, err := did.GenerateEd25519(rand)
	if err != nil {
		return "", err
	}
	if len(keys.logs) >= mostLogKeys {
		return "", fmt.Errorf("%s holds %d log keys, as many as it can; keep it in a safe place, and take out of this one those that stand last in log_keys and were replaced more than 30 days ago", path, len(keys.logs))
	}
	return key.Public().Multikey(), did.AddToKeyFile(path, did.NamedKey{ID: keys.nextLogKeyID(), Key: key})
}

// mostLogKeys leaves room for the DID's key in a key file of 16.
const mostLogKeys = 15

// nextLogKeyID is a name that no log key ever had here, also where some were taken out.
func (k Keys) nextLogKeyID() string {
	last := 1
	for _, l := range k.logs {
		if n, err := strconv.Atoi(strings.TrimPrefix(l.id, logKeyID+"-")); err == nil {
			last = max(last, n)
		}
	}
	return fmt.Sprintf("%s-%d", logKeyID, last+1)
}

// signers are the keys that sign a checkpoint at the time at under settings: the
// first of log_keys, and those it replaced not long ago, as far as we hold them.
// Without the first nothing can be signed: ErrLogKey.
func (k Keys) signers(settings state.Settings, at time.Time) ([]translog.LogKey, error) {
	var keys []translog.LogKey
	for i, multikey := range settings.History().Signing(settings.LogKeys, at) {
		held := slices.IndexFunc(k.logs, func(l logKey) bool { return l.multikey == multikey })
		if held >= 0 {
			keys = append(keys, k.logs[held].key)
		} else if i == 0 {
			return nil, fmt.Errorf("%w: %s; put back the key file that it was made in, by `aln-registry log new-key`", ErrLogKey, multikey)
		}
	}
	return keys, nil
}

// settingsAt are those in force at a size of the log.
func (r *Registry) settingsAt(ctx context.Context, reader *catalog.Reader, size int64) (state.Settings, error) {
	settings, ok, err := state.SettingsOf(r.viewAt(ctx, reader, size))
	if err == nil && !ok {
		err = fmt.Errorf("%w: no settings at size %d", ErrBehind, size)
	}
	return settings, err
}

// errNote: the bytes are no checkpoint of this log. Other errors of openNoteBy say that
// this could not be found out.
var errNote = errors.New("no checkpoint that this log signed")

// openNote is openNoteBy for whom any of the catalog's connections will do.
func (r *Registry) openNote(ctx context.Context, note []byte) (translog.Opened, state.Settings, error) {
	return r.openNoteBy(ctx, &r.Catalog.Reader, note)
}

// openNoteBy verifies a checkpoint of ours by the keys that were in force at its
// size: those of a stored one may have been replaced long ago.
func (r *Registry) openNoteBy(ctx context.Context, reader *catalog.Reader, note []byte) (translog.Opened, state.Settings, error) {
	claimed, err := translog.Peek(note)
	if err != nil {
		return translog.Opened{}, state.Settings{}, fmt.Errorf("%w: %v", errNote, err)
	}
	settings, err := r.settingsAt(ctx, reader, claimed.Size)
	if err != nil {
		return translog.Opened{}, state.Settings{}, err
	}
	keys, err := did.Ed25519Keys(settings.LogKeys)
	if err != nil {
		return translog.Opened{}, state.Settings{}, err
	}
	opened, err := translog.Open(note, string(r.origin), keys)
	if err != nil {
		err = fmt.Errorf("%w: %v", errNote, err)
	}
	return opened, settings, err
}

// LogKeysProof returns what proves the keys of the published log, and the settings
// in force, to whoever knows its entry 0: every record about its settings, what
// these rest on, and the did records of who signed them. A history that ended where
// log_keys last changed would lack votes that a later did record makes matter. Later
// settings are records of authority, which asker has to be entitled to; who is not
// gets entry 0 alone, while log_keys are still those that it names.
func (r *Registry) LogKeysProof(ctx context.Context, asker policy.Asker) ([]BundleItem, error) {
	proof, err := r.logKeysProof(ctx)
	if err != nil {
		return nil, err
	}
	err = r.mayReadAuthority(asker, proof.items[len(proof.items)-1].Index)
	switch {
	case err == nil:
		return proof.items, nil
	case !proof.replaced:
		return proof.items[:1], nil
	}
	return nil, err
}

func (r *Registry) logKeysProof(ctx context.Context) (keysProof, error) {
	r.proving.Lock()
	defer r.proving.Unlock()
	size := r.Size()
	if p := r.keysProof; p != nil && p.size == size {
		return *p, nil
	}
	settings, err := r.settingsAt(ctx, &r.Catalog.Reader, size)
	if err != nil {
		return keysProof{}, err
	}
	b := bundle{registry: r, size: size, items: map[record.ID]BundleItem{}, signers: map[did.DID]bool{}}
	if err := b.history(ctx, record.RegistrySubject().Thing(), anyType); err != nil {
		return keysProof{}, err
	}
	if err := b.changesOfKeys(ctx); err != nil {
		return keysProof{}, err
	}
	r.keysProof = &keysProof{size: size, items: sorted(b.items), replaced: settings.History().Index != 0}
	return *r.keysProof, nil
}

// keysProof is the whole of LogKeysProof at a size of the log; of another size it says nothing.
type keysProof struct {
	size  int64
	items []BundleItem
	// replaced: log_keys are not those of entry 0 any more.
	replaced bool
}
