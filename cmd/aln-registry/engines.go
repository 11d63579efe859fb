package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// engineFlags name what a registry works on. Every command that works on the
// stores themselves has them.
type engineFlags struct {
	data, db, blobs, key string
	wait                 time.Duration
}

// Names inside the data folder.
const (
	catalogFile = "catalog.db"
	storeFolder = "store"
	spoolFolder = "spool"
	startedFile = "keys/log-started"
	keyFile     = "keys/registry.jwk"
	serveLock   = "serve.lock"
)

const defaultDataName = "data"

// defaultWait is how long a start waits for engines: those that start with it come
// up a little later.
const defaultWait = 30 * time.Second

func (f *engineFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.data, "data", defaultDataName, "folder for what no engine holds: keys, catalog and blobs")
	flags.StringVar(&f.db, "db", "", "`URL` of the database, as in postgres://user@host/name; the password comes from PGPASSWORD or PGPASSFILE (default: SQLite in the data folder)")
	flags.StringVar(&f.blobs, "blobs", "", "`URL` of the bucket for blobs and log, as in s3://bucket?endpoint=https://host:9000; the credentials come from AWS_… (default: a folder in the data folder)")
	flags.StringVar(&f.key, "key", "", "the registry's key `FILE`, as `aln-registry key registry` makes it; needed with --db or --blobs (default: in the data folder)")
	flags.DurationVar(&f.wait, "engine-wait", defaultWait, "how long to wait at the start for engines that cannot be reached")
}

// embedded reports whether nothing but the data folder is needed.
func (f engineFlags) embedded() bool { return f.db == "" && f.blobs == "" }

// stateless reports whether nothing is kept in the data folder.
func (f engineFlags) stateless() bool { return f.db != "" && f.blobs != "" }

// purpose is what the parts of a registry are opened for.
type purpose int

const (
	// toServe makes what an embedded registry lacks, and locks its folder.
	toServe purpose = iota
	// toMend wants the registry to be there, and locks its folder.
	toMend
	// toLook wants the registry to be there; a server may be at work on it.
	toLook
)

// opening says how the parts of a registry are to be opened.
type opening struct {
	purpose purpose
	// did is whose key file it must be, "" for anybody's; a new embedded registry gets it.
	did did.DID
	log *slog.Logger
}

// node is the open parts of a registry.
type node struct {
	engines engineFlags
	// folder is the data folder, "" where all is in engines.
	folder string
	// keyPath is the registry's key file.
	keyPath string
	config  registry.Config
	// blobs and catalogName say where things are, without secrets.
	catalogName, blobsName string
	// closers are closed in reverse order.
	closers []io.Closer
}

// open opens all that the flags name.
func (f engineFlags) open(ctx context.Context, o opening) (*node, error) {
	n, err := f.openAround(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := n.openCatalog(ctx, o); err != nil {
		n.close()
		return nil, f.rebuildable(err)
	}
	return n, nil
}

// openAround opens everything but the catalog.
func (f engineFlags) openAround(ctx context.Context, o opening) (*node, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	n := &node{engines: f}
	if err := n.openAround(ctx, o); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// check refuses flags that do not go together, without showing what may be secret.
func (f engineFlags) check() error {
	switch {
	case strings.ContainsAny(f.key, "{\n"):
		return usageError{errors.New("--key takes the path of the registry's key file, not a key")}
	case !f.embedded() && f.key == "":
		return usageError{errors.New("--db and --blobs need --key: the registry's key file, which `aln-registry key registry --out FILE` makes once for all servers of the registry")}
	}
	return nil
}

func (n *node) openAround(ctx context.Context, o opening) error {
	if o.did != "" {
		if _, err := did.Parse(string(o.did)); err != nil {
			return usageError{fmt.Errorf("--did: %w", err)}
		}
	}
	n.config = registry.Config{Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: o.log}
	if err := n.openFolder(o); err != nil {
		return err
	}
	if err := n.openKeys(o); err != nil {
		return err
	}
	if err := n.openSpool(o); err != nil {
		return err
	}
	return n.openBlobs(ctx, o)
}

// openFolder finds the data folder, where one is needed, and locks it.
func (n *node) openFolder(o opening) error {
	f := n.engines
	if f.stateless() {
		return nil
	}
	if o.purpose != toServe && f.key == "" {
		if _, err := existingKeyFile(f.data); err != nil {
			return err
		}
	}
	if o.purpose == toLook {
		var err error
		n.folder, err = filepath.Abs(f.data)
		return err
	}
	folder, lock, err := lockFolder(f.data)
	if err != nil {
		return err
	}
	n.folder, n.closers = folder, append(n.closers, lock)
	return nil
}

// openKeys reads the registry's keys; only an embedded registry's are made here.
func (n *node) openKeys(o opening) error {
	n.keyPath = n.engines.key
	if n.keyPath == "" {
		n.keyPath = filepath.Join(n.folder, keyFile)
	}
	var err error
	if o.purpose == toServe && n.engines.key == "" {
		if err := n.refuseLostKeys(); err != nil {
			return err
		}
		n.config.Keys, err = registry.OpenKeys(n.keyPath, o.did, rand.Reader)
		return err
	}
	if n.keyPath, err = filepath.Abs(n.keyPath); err != nil {
		return err
	}
	n.config.Keys, err = registry.ReadKeys(n.keyPath, o.did)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--key: %w; it is never made by itself: `aln-registry key registry --out FILE` makes one, for a new registry only", err)
	}
	return err
}

// openSpool finds the folder for uploads under way. Files in it have no name, and
// are gone with the process: it is shared, and nothing in it is ever another's.
func (n *node) openSpool(o opening) error {
	if o.purpose != toServe {
		return nil
	}
	if n.folder != "" {
		n.config.Spool = filepath.Join(n.folder, spoolFolder)
		return errors.Join(os.RemoveAll(n.config.Spool), durable.MkdirAll(n.config.Spool, 0o700))
	}
	return nil
}

func (n *node) openBlobs(ctx context.Context, o opening) error {
	path := filepath.Join(n.folder, storeFolder)
	store, err := disk.Open(path)
	if err != nil {
		return err
	}
	n.config.Blobs, n.blobsName = store, path
	n.closers = append(n.closers, store)
	return nil
}

// openCatalog opens the catalog, which is made when there is none.
func (n *node) openCatalog(ctx context.Context, o opening) error {
	path := filepath.Join(n.folder, catalogFile)
	db, err := catalog.OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	n.setCatalog(db, path)
	return nil
}

func (n *node) setCatalog(db *catalog.DB, name string) {
	n.config.Catalog, n.catalogName = db, name
	n.closers = append(n.closers, db)
}

// close gives everything up; a second time it does nothing.
func (n *node) close() error {
	var failed error
	for i := len(n.closers) - 1; i >= 0; i-- {
		failed = errors.Join(failed, n.closers[i].Close())
	}
	n.closers = nil
	return failed
}

// rebuildable adds to an error that a rebuild mends what to type for it, wherever
// that is typed.
func (f engineFlags) rebuildable(err error) error {
	if errors.Is(err, registry.ErrBehind) || errors.Is(err, catalog.ErrDamaged) {
		return fmt.Errorf("%w: type `aln-registry rebuild %s`", err, f)
	}
	return err
}

// String is the flags as they are typed, without secrets.
func (f engineFlags) String() string {
	var typed []string
	if !f.stateless() {
		folder, err := filepath.Abs(f.data)
		if err != nil {
			folder = f.data
		}
		typed = append(typed, "--data "+folder)
	}
	return strings.Join(typed, " ")
}

// lockFolder makes the data folder and its keys folder, and locks it.
func lockFolder(data string) (folder string, lock *os.File, err error) {
	if folder, err = filepath.Abs(data); err != nil {
		return "", nil, err
	}
	for _, dir := range []string{folder, filepath.Join(folder, filepath.Dir(keyFile))} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return "", nil, err
		}
	}
	lock, err = durable.Lock(filepath.Join(folder, serveLock))
	if errors.Is(err, durable.ErrLocked) {
		return "", nil, fmt.Errorf("another aln-registry is working in the data folder %s; stop it first, or give --data another folder", folder)
	}
	return folder, lock, err
}

// existingKeyFile is the key file of the registry in the folder data, which must be there.
func existingKeyFile(data string) (string, error) {
	path := filepath.Join(data, keyFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no registry in the folder %s; give its folder with --data", data)
	}
	return path, nil
}

// refuseLostKeys keeps a folder whose key file is gone from getting a new one:
// the log could never be continued with it.
func (n *node) refuseLostKeys() error {
	if _, err := os.Stat(n.keyPath); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, other := range []string{catalogFile, filepath.Join(storeFolder, "log")} {
		if _, err := os.Stat(filepath.Join(n.folder, other)); err == nil {
			return fmt.Errorf("the registry's key file %s is missing, but the folder holds a log that only it can continue; put it back from your backup", n.keyPath)
		}
	}
	return nil
}

// room is what may still be written where this host keeps something of the
// registry's: the data folder, or uploads under way.
func (n *node) room() (free, size uint64, err error) {
	if n.folder == "" {
		return disk.Room(os.TempDir())
	}
	return disk.Room(n.folder)
}
