package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// publication is what the command line says is to be published.
type publication struct {
	kind, name, version, mediaType string
	evidence                       []string
}

func (a *app) publishCommand() *cobra.Command {
	var p publication
	c := &cobra.Command{
		Use: "publish FILE --kind KIND --name NAME --version VERSION", Short: "Publish a file as a version of an artifact", Args: cobra.ExactArgs(1),
		Long: "Publish a file, of at most 64 MiB, as a version of an artifact: it is signed with your key and entered in\nthe log. Who publishes a new name (role publisher) owns it; a version's bytes never change. Kinds:\n" + kindNames() + ".\nA crate is usually published by `cargo publish --registry aln`; a .crate file can be published here, too,\nunder the name and version that its manifest states.",
		RunE: func(c *cobra.Command, args []string) error { return a.publish(c.Context(), args[0], p) },
	}
	flags := c.Flags()
	flags.StringVar(&p.kind, "kind", "", "kind: "+kindNames())
	flags.StringVar(&p.name, "name", "", "name (of a crate: its manifest's)")
	flags.StringVar(&p.version, "version", "", "version, as SemVer has it (of a crate: its manifest's)")
	flags.StringVar(&p.mediaType, "media-type", "", "what the bytes are, such as application/json (default: that, for .json files, otherwise application/octet-stream)")
	flags.StringSliceVar(&p.evidence, "evidence", nil, "CID, or KIND/NAME@VERSION of an artifact here, that backs this one (repeatable)")
	return c
}

func (a *app) publish(ctx context.Context, path string, p publication) error {
	if p.kind == "" {
		return usageError{fmt.Errorf("--kind is missing: one of %s", kindNames())}
	}
	kind, err := parseKind(p.kind)
	if err != nil {
		return err
	}
	file, size, err := openArtifact(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if kind == record.KindCrate {
		if err := p.ofCrate(file); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	} else if err := p.complete(path); err != nil {
		return err
	}
	subject, err := record.VersionSubject(kind, p.name, p.version)
	if err != nil {
		return plainly(err)
	}
	id, err := hashOf(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	evidence, err := evidenceOf(ctx, r, p.evidence)
	if err != nil {
		return err
	}
	sent := a.transfer("KiB sent", size)
	done, err := r.Publish(ctx, client.Upload{
		Draft:   client.Draft{Subject: subject, Digest: id.Digest(), Body: &record.Publish{Evidence: evidence, MediaType: p.mediaType}},
		Content: io.TeeReader(io.LimitReader(file, size), sent), Size: size,
	})
	sent.done()
	if errors.Is(err, record.ErrMalformed) { // a media type that is none
		return plainly(err)
	}
	if err != nil {
		return err
	}
	return a.printUploaded(subject, done)
}

// openArtifact opens a file that could be published, and says how long it is.
func openArtifact(path string) (*os.File, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file", path)
	case info.Size() > client.MaxUpload:
		err = fmt.Errorf("%s has %d bytes; an artifact has at most %d; publish it in parts, and a manifest that names their CIDs", path, info.Size(), int64(client.MaxUpload))
	default:
		return file, info.Size(), nil
	}
	return nil, 0, errors.Join(err, file.Close())
}

// complete checks what must be given for every kind but crate.
func (p *publication) complete(path string) error {
	for flag, value := range map[string]string{"--name": p.name, "--version": p.version} {
		if value == "" {
			return usageError{fmt.Errorf("%s is missing: the file does not say it", flag)}
		}
	}
	if p.mediaType == "" {
		p.mediaType = "application/octet-stream"
		if strings.HasSuffix(strings.ToLower(path), ".json") {
			p.mediaType = "application/json"
		}
	}
	return nil
}

// ofCrate takes name and version from the manifest where they are not given, and
// checks the crate by all rules before anything is signed or sent.
func (p *publication) ofCrate(file io.ReadSeeker) error {
	if p.mediaType != "" {
		return usageError{errors.New("--media-type: a crate is a crate")}
	}
	name, version, err := cargo.Identify(file, cargo.Limits{})
	if err != nil {
		return err
	}
	if p.name == "" {
		p.name = name
	}
	if p.version == "" {
		p.version = version
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := cargo.Inspect(file, p.name, p.version, cargo.Limits{}); err != nil {
		return err
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// evidenceOf turns what was given as evidence into CIDs: those of artifacts here
// are looked up, others are taken as they are.
func evidenceOf(ctx context.Context, r *client.Registry, given []string) ([]storage.CID, error) {
	evidence := []storage.CID{}
	for _, text := range given {
		id, err := storage.ParseCID(text)
		if err != nil {
			subject, err := record.ParseReference(text)
			if err != nil || subject.Version() == "" {
				return nil, usageError{fmt.Errorf("--evidence %.80q is neither a CID (bafkrei…) nor KIND/NAME@VERSION", text)}
			}
			artifact, err := r.Artifact(ctx, subject)
			if err != nil {
				return nil, fmt.Errorf("--evidence %s: %w", text, err)
			}
			id = artifact.CID
		}
		evidence = append(evidence, id)
	}
	return evidence, nil
}

// uploadedJSON is what publish prints with --json.
type uploadedJSON struct {
	Subject string `json:"subject"`
	client.Uploaded
}

func (a *app) printUploaded(s record.Subject, done client.Uploaded) error {
	if a.json {
		return a.printJSON(uploadedJSON{s.String(), done})
	}
	verb := "published"
	if done.Repeated {
		verb = "was published before, unchanged:"
		fmt.Fprintf(a.out, "%s %s %s, record %s, log index %d\n", s, verb, done.CID, done.Record, done.Index)
	} else {
		fmt.Fprintf(a.out, "%s %s as %s, record %s, log index %d\n", verb, s, done.CID, done.Record, done.Index)
	}
	fmt.Fprintf(a.out, "Others get and verify it with:  aln-registry get %s\n", s)
	return nil
}

// transfer is progress over bytes that pass through it, counted in KiB.
type transfer struct {
	*progress
	passed, all int64
}

func (a *app) transfer(what string, all int64) *transfer {
	return &transfer{progress: a.progress(what), all: all}
}

// Write implements io.Writer.
func (t *transfer) Write(p []byte) (int, error) {
	t.passed += int64(len(p))
	t.at(t.passed>>10, t.all>>10)
	return len(p), nil
}
