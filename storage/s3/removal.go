package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// removalValid is for how long a store obeys one request to remove a blob. What
// is signed in a header it obeys for as long as clocks may differ, 15 minutes: held
// on the way until the blob is published anew, it would destroy it.
const removalValid = time.Minute

// removeSoon sends one request to remove what is stored under a whole key, which
// the store refuses when valid, in whole seconds, is over. Errors are minio-go's.
func (s *Store) removeSoon(ctx context.Context, key string, valid time.Duration) error {
	signed, err := s.core.Presign(ctx, http.MethodDelete, s.place.bucket, key, valid, nil)
	if err != nil {
		return err
	}
	// The signature is in the URL: no client that puts that into its errors sends it.
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, "/", nil)
	if err != nil {
		return err
	}
	request.URL, request.Host = signed, signed.Host
	answer, err := s.wire.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNoContent {
		return nil
	}
	return refusal(answer)
}

// refusal is what a store says that did not do as it was asked about an object.
func refusal(answer *http.Response) error {
	e := minio.ErrorResponse{StatusCode: answer.StatusCode}
	err := xml.NewDecoder(answer.Body).Decode(&e)
	switch {
	case err == nil:
	case errors.Is(err, errEndless), answer.StatusCode < 400:
		return err
	case answer.StatusCode == http.StatusNotFound:
		e.Code = minio.NoSuchKey
	default:
		e.Code, e.Message = http.StatusText(answer.StatusCode), "the store does not say why"
	}
	_, _ = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
	return e
}
