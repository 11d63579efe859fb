package s3

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Whatever a store is asked that it answers in words, it does not fill the memory
// with an answer that has no end, or with many things in few bytes.
func TestAnAnswerWithoutAnEndIsLeft(t *testing.T) {
	const head = `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>`
	for name, part := range map[string]string{
		"keys":   "<Contents><Key>log/" + strings.Repeat("k", 1000) + "</Key></Contents>",
		"tags":   "<Contents/>",
		"text":   strings.Repeat("a", 8000),
		"nested": "<Contents>",
	} {
		for _, status := range []int{http.StatusOK, http.StatusForbidden} {
			t.Run(fmt.Sprint(name, status), func(t *testing.T) {
				sent := 0
				s := played(t, func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(status)
					fmt.Fprint(w, head)
					for r.Context().Err() == nil && sent < 256<<20 {
						n, err := fmt.Fprint(w, part)
						if sent += n; err != nil {
							return
						}
					}
				})
				s.patience = time.Minute // decoding takes its time with the race detector
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				var told error
				for _, err := range s.List(t.Context(), "log/", "") {
					told = err
				}
				runtime.ReadMemStats(&after)
				if !unavailable(told) {
					t.Errorf("error %v, want ErrUnavailable", told)
				}
				if status == http.StatusOK && !strings.Contains(fmt.Sprint(told), errEndless.Error()) {
					t.Errorf("error %v, want %v", told, errEndless)
				}
				if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
					t.Errorf("%d MiB were taken for it", took>>20)
				}
			})
		}
	}
}

// A whole page of the longest keys, as stores write them, is within the bound.
func TestTheLongestListIsRead(t *testing.T) {
	s := played(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType>`)
		for i := range pageSize {
			fmt.Fprintf(w, "<Contents><Key>%04d%s</Key><LastModified>2026-11-26T13:11:56.000Z</LastModified><ETag>&#34;%032d&#34;</ETag><Size>5</Size>"+
				"<Owner><ID>%064d</ID><DisplayName>owner</DisplayName></Owner><StorageClass>STANDARD</StorageClass>"+
				"<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType></Contents>", i, strings.Repeat("%c3", 1020), i, i)
		}
		fmt.Fprint(w, "<IsTruncated>false</IsTruncated></ListBucketResult>")
	})
	s.patience = time.Minute
	page, _, err := s.page(t.Context(), "", "")
	if err != nil || len(page) != pageSize {
		t.Errorf("%d keys, %v", len(page), err)
	}
}

// The bound is for what is decoded: a blob may have more, of any bytes.
func TestBlobsAreNotBoundAsAnswersAre(t *testing.T) {
	data := bytes.Repeat([]byte("<"), maxAnswer+2)
	s := played(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	})
	if got, err := read(t, s, storage.CIDOf(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
