package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/s3"
)

// engineFlags name what a registry works on. Every command that works on the
// stores themselves has them.
type engineFlags struct {
	data, db, blobs, key string
	wait                 time.Duration
	// dataGiven reports whether --data was.
	dataGiven func() bool
}

const defaultDataName = "data"

// defaultWait is how long a start waits for engines: those that are started with
// it come up a little later.
const defaultWait = 30 * time.Second

func (f *engineFlags) register(c *cobra.Command) {
	f.registerCatalog(c)
	flags := c.Flags()
	flags.StringVar(&f.blobs, "blobs", "", "`URL` of the bucket for blobs and log, as in s3://bucket?endpoint=https://host:9000; its credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (default: a folder in the data folder)")
	flags.StringVar(&f.key, "key", "", "the registry's key `FILE`, which `aln-registry key registry` makes; needed with --db and with --blobs (default: in the data folder)")
}

// registerCatalog is register for a command that needs the catalog alone.
func (f *engineFlags) registerCatalog(c *cobra.Command) {
	flags := c.Flags()
	f.dataGiven = func() bool { return flags.Changed("data") }
	flags.StringVar(&f.data, "data", defaultDataName, "folder for what is in no engine: keys, catalog and blobs")
	flags.StringVar(&f.db, "db", "", "`URL` of the PostgreSQL database for the catalog, as in postgres://user@host/name; its password in PGPASSWORD or PGPASSFILE (default: SQLite in the data folder)")
	flags.DurationVar(&f.wait, "engine-wait", defaultWait, "how long to wait for engines that cannot be reached at the start")
}

// embedded reports whether the registry is in the data folder alone.
func (f engineFlags) embedded() bool { return f.db == "" && f.blobs == "" }

// stateless reports whether nothing of it is in the data folder.
func (f engineFlags) stateless() bool { return f.db != "" && f.blobs != "" }

// check refuses flags that do not go together, and shows nothing that may be secret.
func (f engineFlags) check() error {
	if err := f.checkURLs(); err != nil {
		return err
	}
	if !f.embedded() && f.key == "" {
		return usageError{errors.New("--db and --blobs need --key: the registry's key file, one for all its servers; `aln-registry key registry --out FILE` makes that of a new registry")}
	}
	return checkKeyPath(f.key)
}

// checkKeyPath refuses a key in the place of its file's path, which errors would show.
func checkKeyPath(path string) error {
	if strings.ContainsAny(path, "{\n") {
		return usageError{errors.New("--key takes the path of the registry's key file, not a key")}
	}
	return nil
}

// checkDID refuses a --did that is none.
func checkDID(id did.DID) error {
	if id == "" {
		return nil
	}
	if _, err := did.Parse(string(id)); err != nil {
		return usageError{fmt.Errorf("--did: %w", err)}
	}
	return nil
}

func (f engineFlags) checkURLs() error {
	if f.db != "" {
		if err := catalog.CheckAddress(f.db); err != nil {
			return usageError{fmt.Errorf("--db is not the URL of a PostgreSQL database; write it like postgres://user@host:5432/name, with %%XX for what is not a letter or digit in a name: %w", err)}
		}
	}
	if f.blobs != "" {
		if u, err := url.Parse(f.blobs); err != nil || u.Scheme != "s3" || u.Host == "" {
			return usageError{errors.New("--blobs is not the URL of a bucket; write it like s3://bucket?endpoint=https://host:9000")}
		}
		if err := s3.CheckAddress(f.blobs); err != nil {
			return usageError{fmt.Errorf("--blobs: %w", err)}
		}
	}
	if f.wait < 0 {
		return usageError{fmt.Errorf("--engine-wait %s is negative", f.wait)}
	}
	return nil
}

// database is --db without what is or may be secret in it, to be typed again.
func (f engineFlags) database() string { return catalog.ShowAddress(f.db) }

// bucket is --blobs, which is read only where nothing in it is secret.
func (f engineFlags) bucket() string {
	if s3.CheckAddress(f.blobs) != nil {
		return "URL"
	}
	return f.blobs
}

// String is the flags as they are typed, wherever that is, without what is secret.
func (f engineFlags) String() string {
	var typed []string
	add := func(flag, value string) { typed = append(typed, flag+" "+shellWord(value)) }
	if f.db != "" {
		add("--db", f.database())
	}
	if f.blobs != "" {
		add("--blobs", f.bucket())
	}
	if f.key != "" {
		add("--key", absolute(f.key))
	}
	if !f.stateless() {
		add("--data", absolute(f.data))
	}
	return strings.Join(typed, " ")
}

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// shellWord is text as one word of a shell's command line.
func shellWord(text string) string {
	plain := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+=,"
	if filepath.Separator == '\\' {
		plain += `\`
	}
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// mendable adds to an error that a command mends what to type for it.
func (f engineFlags) mendable(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, registry.ErrBehind), errors.Is(err, catalog.ErrDamaged):
		return fmt.Errorf("%w: type `aln-registry rebuild %s`", err, f)
	case errors.Is(err, registry.ErrLost):
		return fmt.Errorf("%w: correct --blobs, or type `aln-registry fsck --repair %s`; what that cannot put back, restore from a backup", err, f)
	case errors.Is(err, catalog.ErrOldSchema):
		return fmt.Errorf("%w: type `aln-registry migrate up --db %s`", err, shellWord(f.database()))
	}
	return err
}
