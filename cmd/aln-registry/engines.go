package main

import (
	"cmp"
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

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
	"phoenix-lab.org/aln-registry/storage/s3"
)

// Names inside the data folder.
const (
	catalogFile = "catalog.db"
	storeFolder = "store"
	spoolFolder = "spool"
	startedFile = "keys/log-started"
	keyFile     = "keys/registry.jwk"
	serveLock   = "serve.lock"
)

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
		if o.purpose == toLook && errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no catalog here yet: type `aln-registry rebuild %s`, if that is the right place (%w)", f, err)
		}
		return nil, f.mendable(err)
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

func (n *node) openAround(ctx context.Context, o opening) error {
	if err := checkDID(o.did); err != nil {
		return err
	}
	n.config = registry.Config{Limits: cargo.DefaultLimits(), Clock: time.Now, Rand: rand.Reader, Log: o.log, Embedded: n.engines.embedded()}
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
	if o.purpose == toMend { // the catalog may be replaced
		lock, err := n.lockGarbage()
		if err != nil {
			return err
		}
		n.closers = append(n.closers, lock)
	}
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

// openSpool finds the folder for uploads under way: in the data folder, or the
// system's where there is none. Files in it have no name and are gone with the
// process, however it ends, so that several processes may share it.
func (n *node) openSpool(o opening) error {
	parent := n.folder
	if parent == "" && n.engines.dataGiven() {
		parent = absolute(n.engines.data)
	}
	if parent != "" {
		n.config.Spool = filepath.Join(parent, spoolFolder)
		if n.folder != "" && o.purpose != toLook { // its lock is ours
			if err := os.RemoveAll(n.config.Spool); err != nil {
				return err
			}
		}
	}
	if err := tryFolder(n.config.Spool); err != nil {
		return fmt.Errorf("no room for uploads under way: %w; TMPDIR, or --data, names a folder for them", err)
	}
	return nil
}

// tryFolder makes the folder, "" for the system's, and a file in it.
func tryFolder(folder string) error {
	if folder != "" {
		if err := durable.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	f, err := durable.CreateUnnamed(folder)
	if err != nil {
		return err
	}
	return f.Close()
}

// openBlobs opens the store of blobs and log; a folder is made when there is none,
// a bucket never.
func (n *node) openBlobs(ctx context.Context, o opening) error {
	f := n.engines
	if f.blobs == "" {
		path := filepath.Join(n.folder, storeFolder)
		if o.purpose == toLook {
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("the folder of blobs and log is not there, or not mounted: %w", err)
			}
		}
		store, err := disk.Open(path)
		if err != nil {
			return err
		}
		n.setBlobs(store, store, path)
		return nil
	}
	var store *s3.Store
	err := f.await(ctx, o.log, "blob storage", func() (err error) {
		store, err = s3.Open(ctx, f.blobs, s3.Options{Spool: n.config.Spool, SpoolBytes: spoolBytes(n.config.Spool), OpenPatience: askPatience})
		return err
	})
	if errors.Is(err, s3.ErrAddress) { // a restart does not mend it: systemd is told by the status
		return usageError{err}
	}
	if err != nil {
		return err
	}
	n.setBlobs(store, store, f.bucket())
	return nil
}

// spoolBytes is what open blobs may take of folder's file system, where uploads
// wait too: half of what is free now; 0, the store's own bound, where that is not known.
func spoolBytes(folder string) int64 {
	free, _, err := disk.Room(cmp.Or(folder, os.TempDir()))
	if err != nil {
		return 0
	}
	return int64(free / 2)
}

func (n *node) setBlobs(blobs storage.Blobs, store io.Closer, name string) {
	n.config.Blobs, n.blobsName = blobs, name
	n.closers = append(n.closers, store)
}

// inventory is what the store of blobs can be asked and told beside.
func (n *node) inventory() storage.Inventory {
	return n.config.Blobs.(storage.Inventory) // every store that is opened here is one
}

// openCatalog opens the catalog. It is made when there is none, save for who only
// looks, to whom that is fs.ErrNotExist.
func (n *node) openCatalog(ctx context.Context, o opening) error {
	f := n.engines
	if f.db == "" {
		path := filepath.Join(n.folder, catalogFile)
		open := catalog.OpenSQLite
		if o.purpose == toLook {
			open = catalog.AttachSQLite
		}
		db, err := open(ctx, path)
		if err != nil {
			return err
		}
		n.setCatalog(db, path)
		return nil
	}
	open := catalog.OpenPostgres
	if o.purpose == toLook {
		open = catalog.AttachPostgres
	}
	var db *catalog.DB
	err := f.await(ctx, o.log, "the database", func() (err error) {
		db, err = open(ctx, f.db)
		return err
	})
	if err != nil {
		return err
	}
	n.setCatalog(db, f.database())
	return nil
}

func (n *node) setCatalog(db *catalog.DB, name string) {
	n.config.Catalog, n.catalogName = db, name
	n.closers = append(n.closers, db)
}

// away reports whether an engine did not answer, which waiting may mend.
func away(err error) bool {
	return errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, storage.ErrUnavailable)
}

// oneLine is an error without line breaks: a driver's may have several addresses, a line each.
type oneLine struct{ error }

// Error implements error.
func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

// Unwrap gives errors.Is the error.
func (e oneLine) Unwrap() error { return e.error }

// askPatience is how long a store is waited for that is only asked whether it is there.
const askPatience = 2 * time.Second

// awaitEvery is how often an engine that cannot be reached is tried.
const awaitEvery = 500 * time.Millisecond

// await opens an engine, again and again while it cannot be reached and --engine-wait
// is not over.
func (f engineFlags) await(ctx context.Context, log *slog.Logger, engine string, open func() error) error {
	deadline := time.Now().Add(f.wait)
	for told := false; ; told = true {
		err := open()
		if !away(err) || ctx.Err() != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("%s did not answer within %s (--engine-wait): %w", engine, f.wait, oneLine{err})
		}
		if !told {
			log.Warn("an engine cannot be reached; waiting for it", "engine", engine, "at_most", f.wait.String(), "error", oneLine{err})
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, awaitEvery)):
		}
	}
}

// close gives everything up; a second time it does nothing.
func (n *node) close() {
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i].Close()
	}
	n.closers = nil
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
		if _, err := os.Stat(filepath.Join(data, storeFolder)); err == nil { // of a backup without keys, say
			return "", fmt.Errorf("%s is missing in the folder %s: put it back, or name it with --key", keyFile, data)
		}
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
// registry's: in the data folder, or else where uploads under way lie.
func (n *node) room() (free, size uint64, err error) {
	return disk.Room(cmp.Or(n.folder, n.config.Spool, os.TempDir()))
}
