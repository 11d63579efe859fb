package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// MaxUpload bounds one artifact, in bytes: what this version's registries take.
	MaxUpload = 64 << 20
	// uploadTimeout bounds the transfer of one artifact to the registry; its
	// record is good for no longer.
	uploadTimeout = recordValidity

	artifactsPath = "/v1/artifacts"
	// pageOfArtifacts and pageOfVersions are how many are asked for at once.
	pageOfArtifacts = 100
	pageOfVersions  = 1000
)

// Upload is the content of a version that is to be published.
type Upload struct {
	// Draft is the publish record, its digest that of the content.
	Draft   Draft
	Content io.Reader
	// Size is the content's, in bytes.
	Size int64
}

// Uploaded is where a version went.
type Uploaded struct {
	CID    storage.CID `json:"cid"`
	Record record.ID   `json:"record"`
	Index  int64       `json:"index"`
	// Repeated: the same bytes had been published before; Record and Index are that publish's.
	Repeated bool `json:"repeated"`
}

// Publish signs u's record and sends its content, which the registry asks for
// only if it would take it. Errors: those of Sign; *APIError, with status 409
// when the version is there with other bytes, 413 when it is too large.
func (r *Registry) Publish(ctx context.Context, u Upload) (Uploaded, error) {
	rec, err := r.Sign(ctx, u.Draft, recordValidity)
	if err != nil {
		return Uploaded{}, err
	}
	token, err := r.carried(ctx, rec)
	if err != nil {
		return Uploaded{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	resp, err := r.web.send(ctx, call{
		method: http.MethodPut, path: artifactPath(u.Draft.Subject), token: token,
		contentType: "application/octet-stream", content: u.Content, size: u.Size,
	})
	if err != nil {
		return Uploaded{}, err
	}
	defer resp.Body.Close()
	var done Uploaded
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxAnswer), &done); err != nil {
		return Uploaded{}, fmt.Errorf("%w: publish of %s: %w", ErrAnswer, u.Draft.Subject, err)
	}
	if done.CID.Digest() != u.Draft.Digest || done.Record != rec.ID() && !done.Repeated || done.Index < 0 {
		return Uploaded{}, fmt.Errorf("%w: published %s, the registry speaks of %s and the record %.80q", ErrAnswer, u.Draft.Subject, done.CID, done.Record)
	}
	return done, nil
}

// ArtifactName is an artifact as the registry tells it: a claim, not a proof.
type ArtifactName struct {
	Kind         record.Kind `json:"kind"`
	Name         string      `json:"name"`
	Owners       []did.DID   `json:"owners"`
	VersionCount int         `json:"version_count"`
	// Newest is the largest version, releases and what is not yanked first.
	Newest Artifact `json:"newest"`
}

// Artifacts lists the artifacts of kind ("": of all) that have query in their
// name, at most most of them; more says that there are others.
func (r *Registry) Artifacts(ctx context.Context, kind record.Kind, query string, most int) (found []ArtifactName, more bool, err error) {
	path := artifactsPath
	if kind != "" {
		path += "/" + string(kind)
	}
	for after := ""; ; {
		var page struct {
			Artifacts []ArtifactName `json:"artifacts"`
			Next      string         `json:"next"`
		}
		asked := url.Values{"q": {query}, "after": {after}, "limit": {strconv.Itoa(pageOfArtifacts)}}
		if err := r.readJSON(ctx, path+"?"+asked.Encode(), maxBundle, &page); err != nil {
			return nil, false, err
		}
		found = append(found, page.Artifacts...)
		switch {
		case len(found) > most:
			return found[:most], true, nil
		case page.Next == "":
			return found, false, nil
		case len(page.Artifacts) == 0 || len(found) == most:
			return found, true, nil
		}
		after = page.Next
	}
}

// Versions returns an artifact with its versions, at most most of them.
func (r *Registry) Versions(ctx context.Context, s record.Subject, most int) (name ArtifactName, versions []Artifact, err error) {
	path := artifactsPath + "/" + escapePath(string(s.Kind())+"/"+s.Name())
	for after := ""; ; {
		var page struct {
			ArtifactName
			Versions []Artifact `json:"versions"`
			Next     string     `json:"next"`
		}
		asked := url.Values{"after": {after}, "limit": {strconv.Itoa(min(most, pageOfVersions))}}
		if err := r.readJSON(ctx, path+"?"+asked.Encode(), maxBundle, &page); err != nil {
			return ArtifactName{}, nil, err
		}
		if page.Kind != s.Kind() || cargo.CanonicalName(page.Name) != cargo.CanonicalName(s.Name()) {
			return ArtifactName{}, nil, fmt.Errorf("%w: asked for %s, got %.80q", ErrAnswer, s, string(page.Kind)+"/"+page.Name)
		}
		name, versions = page.ArtifactName, append(versions, page.Versions...)
		if page.Next == "" || len(page.Versions) == 0 || len(versions) >= most {
			return name, versions[:min(len(versions), most)], nil
		}
		after = page.Next
	}
}

// Newest returns the version of s that its registry says is the newest.
func (r *Registry) Newest(ctx context.Context, s record.Subject) (Artifact, error) {
	name, _, err := r.Versions(ctx, s, 1)
	return name.Newest, err
}

// downloadPath is where a version's bytes are: for a crate, where cargo gets them.
func downloadPath(s record.Subject) string {
	if s.Kind() == record.KindCrate {
		return "/api/v1/crates/" + url.PathEscape(s.Name()) + "/" + url.PathEscape(s.Version()) + "/download"
	}
	return artifactPath(s) + "/content"
}
