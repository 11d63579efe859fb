package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
)

// setUp begins the log at the first start, for admin, or where that is "" for the
// identity of this computer, which it returns if the first admin's key is here. Keys are marked
// when they have begun a log; whether one that is there is theirs only who opens it knows.
func (a *app) setUp(ctx context.Context, n *node, admin did.DID) (*client.Identity, error) {
	begun, err := registry.Begun(ctx, n.config)
	if err != nil {
		return nil, err
	}
	if begun >= freshLog {
		return nil, nil
	}
	if begun > 0 { // the admin whom entry 0 names may have a key here
		_, err := registry.Begin(ctx, n.config, admin, signersHere()...)
		return nil, err
	}
	if err := n.refuseSecondLog(); err != nil {
		return nil, err
	}
	operator, err := a.operator(n, admin)
	if err != nil {
		return nil, err
	}
	var held []did.Signer
	if operator != nil {
		admin, held = operator.DID(), []did.Signer{operator.Signer()}
	}
	if _, err := registry.Begin(ctx, n.config, admin, held...); err != nil {
		return nil, err
	}
	return operator, n.markStarted()
}

// signersHere are the identities of this computer, none where there is no folder
// for them or they cannot be read: a server need not have any.
func signersHere() []did.Signer {
	var signers []did.Signer
	for _, i := range identitiesHere() {
		signers = append(signers, i.Signer())
	}
	return signers
}

func identitiesHere() []client.Identity {
	h, err := home()
	if err != nil {
		return nil
	}
	identities, err := h.Identities()
	if err != nil {
		return nil
	}
	return identities
}

// operator is the identity here that is the first admin, made where no admin is
// named and there is none; nil where admin's key is elsewhere.
func (a *app) operator(n *node, admin did.DID) (*client.Identity, error) {
	if admin == "" && !n.engines.embedded() {
		return nil, errors.New("the catalog and the blob storage are empty; if a new log is to begin here, name its first admin with --admin DID (`aln-registry key show` prints yours), otherwise correct --db and --blobs")
	}
	if admin != "" {
		here := identitiesHere()
		i := slices.IndexFunc(here, func(i client.Identity) bool { return i.DID() == admin })
		if i < 0 {
			return nil, nil
		}
		return &here[i], nil
	}
	h, err := home()
	if err != nil {
		return nil, err
	}
	operator, err := h.Identity(a.identity)
	if errors.Is(err, client.ErrNoIdentity) && (a.identity == "" || a.identity == client.DefaultIdentity) {
		operator, err = h.CreateIdentity("", rand.Reader)
	}
	return &operator, err
}

// explained is why no log can be gone on with: what does not fit may be another registry's.
func (n *node) explained(ctx context.Context, err error) error {
	if errors.Is(err, registry.ErrBehind) || errors.Is(err, registry.ErrFork) || errors.Is(err, registry.ErrLost) {
		if other := registry.CheckOrigin(ctx, n.config); other != nil {
			return other
		}
	}
	return n.engines.mendable(err)
}

// refuseSecondLog keeps keys that have begun a log from beginning another.
func (n *node) refuseSecondLog() error {
	mark := n.begunMark()
	if mark == "" {
		return nil
	}
	return n.missingLog(mark, "is empty; a second log under one name would be a fork, so")
}

// missingLog says that the log is missing that mark says was begun: what blob storage is
// instead, and what else than to restore it is to be done.
func (n *node) missingLog(mark, is string) error {
	return fmt.Errorf("the log of %s is missing: its keys are here, and %s says that it was begun, but %s %s restore %s from your backup",
		n.config.Keys.DID(), n.shown(mark), n.blobsName, is, n.blobsName)
}

// begunMark is the file that says that the keys have begun a log, "" where none does.
func (n *node) begunMark() string {
	for _, mark := range n.marks() {
		if _, err := os.Stat(mark); err == nil {
			return mark
		}
	}
	return ""
}

// marks are the files beside the keys that say that they have begun a log.
func (n *node) marks() []string {
	var marks []string
	if n.folder != "" {
		marks = append(marks, filepath.Join(n.folder, startedFile))
	}
	if n.engines.key != "" {
		marks = append(marks, n.keyPath+startedSuffix)
	}
	return marks
}

// startedSuffix is what is put behind the name of a key file that has begun a log.
const startedSuffix = ".log-started"

// shown is path as it is told, from the data folder on where it is there.
func (n *node) shown(path string) string {
	if rest, err := filepath.Rel(n.folder, path); n.folder != "" && err == nil && filepath.IsLocal(rest) {
		return filepath.ToSlash(rest)
	}
	return path
}

// markStarted notes beside the keys that they have begun a log: should the log get
// lost, they must not begin another. A key file that was handed in may be where
// nothing can be written; then --admin, which no later start needs, is the only guard.
func (n *node) markStarted() error {
	for _, mark := range n.marks() {
		err := durable.CreateFile(mark, []byte("The keys in this folder have begun a log; they cannot begin another.\n"), 0o600)
		if err != nil && !errors.Is(err, fs.ErrExist) && n.engines.key == "" {
			return err
		}
	}
	return nil
}
