package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	maxBlob = 5 << 30 // bytes: S3 takes no more in one request
	// straight is how large a blob is at most that is sent without a look whether
	// it is there: that takes as long as sending it.
	straight = 64 << 10
	// rounds is how often a store may say that something is stored, and have
	// nothing when asked for it.
	rounds = 5
)

// What is stored carries the digest and the number of its bytes, so that what
// changes headers or bodies on the way shows itself also where no CID says what
// they should be.
const (
	metaSum  = "Sha256"
	metaSize = "Size"
)

func (s *Store) blobKey(id storage.CID) string { return s.place.prefix + blobFolder + id.String() }

// Put implements storage.Blobs. A blob that is there already is downloaded and
// hashed before it is acknowledged; one found corrupt is replaced.
func (s *Store) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	if err := s.put(ctx, id, size, r); err != nil {
		return fmt.Errorf("put blob %s of %d bytes: %w", id, size, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	if id.IsZero() || size < 0 {
		return storage.ErrMismatch
	}
	if size > maxBlob {
		return fmt.Errorf("an object store takes at most %d bytes at once", int64(maxBlob))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	state := absent
	if size > straight {
		var err error
		if state, err = s.look(ctx, id, size); err != nil || state == present {
			return err
		}
	}
	src, err := s.verified(ctx, id, size, r)
	if err != nil {
		return err
	}
	defer src.free()
	for range rounds {
		_, err := s.upload(ctx, s.blobKey(id), src, size, id.Hex(), state == absent)
		if !errors.Is(err, errTaken) {
			return err
		}
		if state, err = s.look(ctx, id, size); err != nil || state == present {
			return err
		}
		// Said to be stored, and not found: what it is when it is there is known,
		// so it may as well be written over.
		state = broken
	}
	return fmt.Errorf("%w: the store says that it is there, and does not find it", storage.ErrUnavailable)
}

// state is what a look at a blob found.
type state int

const (
	absent state = iota
	present
	broken
)

// look reads the blob of size bytes, if there is one, and hashes it. One that is
// there and cannot be read counts as broken: MinIO says of bytes that rotted on
// its disks that they cannot be had now, for ever.
func (s *Store) look(ctx context.Context, id storage.CID, size int64) (state, error) {
	if _, err := s.Stat(ctx, id); errors.Is(err, storage.ErrNotFound) {
		return absent, nil
	} else if err != nil {
		return absent, err
	}
	n, err := s.fetch(ctx, id, nowhere{})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return absent, nil
	case errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrUnavailable):
		return broken, nil
	case err != nil:
		return absent, err
	case n != size:
		return absent, fmt.Errorf("it has %d bytes: %w", n, storage.ErrMismatch)
	}
	return present, nil
}

// upload stores a source's size bytes, whose sha256 is sum, under key, in one
// request that is signed over the digest: the store refuses other bytes. With
// create it stores nothing where something is stored: errTaken, which also is
// what an attempt sees whose forerunner succeeded and was not heard of.
func (s *Store) upload(ctx context.Context, key string, src *source, size int64, sum string, create bool) (info minio.UploadInfo, err error) {
	options := minio.PutObjectOptions{
		DisableContentSha256: true, // minio-go's own, in pieces; sum is signed instead
		UserMetadata:         map[string]string{metaSum: sum, metaSize: strconv.FormatInt(size, 10)},
	}
	if create {
		options.SetMatchETagExcept("*")
	}
	err = s.try(ctx, "upload", size, func(ctx context.Context, p *pace) error {
		from, err := src.begin(p.moved)
		if err != nil {
			return err
		}
		defer from.end()
		info, err = s.core.PutObject(ctx, s.place.bucket, key, from, size, "", sum, options)
		if create && isTaken(err) {
			return settled{errTaken}
		}
		if err == nil && info.ETag == "" {
			return errors.New("the store does not say what it stored")
		}
		return s.answer(err)
	})
	return info, err
}

// Stat implements storage.Blobs.
func (s *Store) Stat(ctx context.Context, id storage.CID) (int64, error) {
	if id.IsZero() {
		return 0, fmt.Errorf("blob without a name: %w", storage.ErrNotFound)
	}
	size := int64(0)
	err := s.try(ctx, "blob "+id.String(), 0, func(ctx context.Context, _ *pace) (err error) {
		size, err = s.size(ctx, s.blobKey(id))
		return s.answer(err)
	})
	return size, err
}

// size asks how many bytes are stored under key, until an answer agrees with the
// number stored beside them or with the answer before.
func (s *Store) size(ctx context.Context, key string) (int64, error) {
	last := int64(-1)
	for range rounds {
		info, err := s.core.StatObject(ctx, s.place.bucket, key, minio.StatObjectOptions{})
		if err != nil {
			return 0, s.missing(ctx, key, err)
		}
		if info.Size >= 0 && (info.Size == last || strconv.FormatInt(info.Size, 10) == info.UserMetadata[metaSize]) {
			return info.Size, nil
		}
		last = info.Size
	}
	return 0, errChanged
}

// missing looks behind an answer to HEAD that something is not there: RGW says
// the same where the bucket is not, and only the answer to GET tells.
func (s *Store) missing(ctx context.Context, key string, err error) error {
	if minio.ToErrorResponse(err).Code != minio.NoSuchKey {
		return err
	}
	from, _, _, err := s.core.GetObject(ctx, s.place.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	from.Close()
	return errors.New("the store finds it, and does not")
}
