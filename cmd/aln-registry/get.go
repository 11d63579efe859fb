package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

func (a *app) getCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "get [KIND/]NAME[@VERSION]", Short: "Fetch an artifact and verify it", Args: cobra.ExactArgs(1),
		Long: "Fetch a version of an artifact (without @VERSION the newest release) and prove from the pinned registry's\nlog, as `verify` does, that its bytes are those that its publisher signed. Only then does the file get its\nname; a file that is there already is not replaced.",
		RunE: func(c *cobra.Command, args []string) error { return a.get(c.Context(), args[0], output) },
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write, - for the standard output (default: NAME-VERSION here, with .crate for a crate)")
	return c
}

// gotJSON is what get prints with --json.
type gotJSON struct {
	Subject string      `json:"subject"`
	File    string      `json:"file"`
	CID     storage.CID `json:"cid"`
	Size    int64       `json:"size"`
	Index   int64       `json:"index"`
	Signer  did.URL     `json:"signer"`
	Yanked  bool        `json:"yanked"`
}

func (a *app) get(ctx context.Context, what, output string) error {
	subject, err := reference(what)
	if err != nil {
		return err
	}
	if a.json && output == "-" {
		return usageError{errors.New("--json and -o - both write to the standard output; choose one")}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	if subject.Version() == "" {
		named := subject
		if subject, err = newest(ctx, r, subject); err != nil {
			return a.theirs(ctx, r, named, err, notGotten)
		}
	}
	if output == "" {
		output = fileName(subject)
	}
	got, err := a.fetch(ctx, r, subject, output)
	if err != nil {
		return a.theirs(ctx, r, subject, err, notGotten)
	}
	switch {
	case a.json:
		return a.printJSON(got)
	case output == "-":
		return nil
	}
	fmt.Fprintf(a.out, "%s: %s, %s, signed by %s, log index %d\n", got.File, got.Subject, counted(got.Size, "byte", "bytes"), got.Signer.DID, got.Index)
	if got.Yanked {
		fmt.Fprintln(a.out, "note: this version is yanked")
	}
	return nil
}

// notGotten is about crates of other registries (theirs).
const notGotten = "cargo fetches that, `get` what is published here; `aln-registry why %s --source %s` says whether a build gets it"

// newest is the newest version of s; that all are yanked is said rather than passed over.
func newest(ctx context.Context, r *client.Registry, s record.Subject) (record.Subject, error) {
	v, err := r.Newest(ctx, s)
	if err != nil {
		return s, err
	}
	if v.Yanked {
		return s, fmt.Errorf("all versions of %s are yanked; name the one you want: `aln-registry list %s` shows them", s, s)
	}
	return record.VersionSubject(s.Kind(), s.Name(), v.Version)
}

// fileName is what a version is called as a file: its name has only letters,
// digits and . _ - +, and never begins with a dot.
func fileName(s record.Subject) string {
	name := s.Name() + "-" + s.Version()
	if s.Kind() == record.KindCrate {
		name += ".crate"
	}
	return name
}

// fetch downloads subject beside its destination, verifies it and puts it in
// place; what does not verify is removed.
func (a *app) fetch(ctx context.Context, r *client.Registry, subject record.Subject, output string) (got gotJSON, err error) {
	folder := filepath.Dir(output)
	if output == "-" {
		folder = os.TempDir()
	} else if err := checkTarget(output); err != nil {
		return got, err
	}
	file, err := temporary(folder)
	if err != nil {
		return got, err
	}
	defer func() {
		if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrClosed) {
			fmt.Fprintln(a.err, "aln-registry:", err)
		}
	}()
	received := a.transfer("KiB received", 0)
	id, size, err := r.Download(ctx, subject, io.MultiWriter(file, received))
	received.done()
	if err != nil {
		return got, err
	}
	view, err := r.View(ctx)
	if err != nil {
		return got, err
	}
	verdict, err := view.Verify(ctx, verify.Want{Subject: subject, CID: id})
	if err != nil {
		return got, err
	}
	if !verdict.OK() {
		return got, fmt.Errorf("%s does not verify, and was not kept: %s; `aln-registry verify %s` shows all checks", subject, firstFailed(verdict), subject)
	}
	got = gotJSON{Subject: subject.String(), File: output, CID: id, Size: size, Index: verdict.Index, Signer: verdict.Signer, Yanked: verdict.Yanked}
	if output == "-" {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return got, err
		}
		_, err := io.Copy(a.out, file)
		return got, err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return got, err
	}
	return got, place(os.Link, file.Name(), output, id)
}

// temporary makes a file in folder with the mode that the umask leaves.
func temporary(folder string) (*os.File, error) {
	return os.OpenFile(filepath.Join(folder, ".aln-registry-"+rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// checkTarget refuses what is there already and is no regular file: a pipe that
// nobody reads, say, would be waited for.
func checkTarget(output string) error {
	info, err := os.Stat(output)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(output); err == nil {
			return fmt.Errorf("%s is a link to a file that is not there; remove it, or write elsewhere with -o", output)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is there and is no regular file; write elsewhere with -o, or to the standard output with -o -", output)
	}
	return nil
}

// place gives a verified file its name, by link, which replaces nothing, whoever
// else writes there meanwhile. A file of that name with the same bytes is as good.
func place(link func(from, to string) error, temporary, output string, id storage.CID) error {
	err := link(temporary, output)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		err = copyNew(temporary, output)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := checkTarget(output); err != nil {
		return err
	}
	there, err := os.Open(output)
	if err != nil {
		return err
	}
	defer there.Close()
	same, err := hashOf(there)
	if err != nil {
		return fmt.Errorf("read %s: %w", output, err)
	}
	if same != id {
		return fmt.Errorf("%s is there already, with other bytes; remove it, or write elsewhere with -o", output)
	}
	return nil
}

// copyNew copies a file to a new one, of which nothing stays if that fails.
func copyNew(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		err = errors.Join(err, os.Remove(to))
	}
	return err
}
