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
	"phoenix-lab.org/aln-registry/durable"
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
		if subject, err = newest(ctx, r, subject); err != nil {
			return err
		}
	}
	if output == "" {
		output = fileName(subject)
	}
	got, err := a.fetch(ctx, r, subject, output)
	if err != nil {
		return err
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
	return got, place(file.Name(), output, id)
}

// temporary makes a file in folder with the mode that the umask leaves.
func temporary(folder string) (*os.File, error) {
	return os.OpenFile(filepath.Join(folder, ".aln-registry-"+rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// place renames a verified file, unless one is there with other bytes.
func place(temporary, output string, id storage.CID) error {
	there, err := os.Open(output)
	if errors.Is(err, fs.ErrNotExist) {
		return durable.Replace(temporary, output)
	}
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
