package client

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"records":[{"index":0,"envelope":"e30=","attachments":["AA=="]},{"index":5,"envelope":"","attachments":[]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j bundleJSON
		if json.Unmarshal(data, &j) != nil {
			return
		}
		records, err := j.decode()
		if err != nil {
			return
		}
		for i, r := range records {
			if r.Index < 0 || i > 0 && r.Index <= records[i-1].Index {
				t.Fatalf("accepted %+v", records)
			}
		}
	})
}

func FuzzPin(f *testing.F) {
	const base = "https://a.example"
	home := OpenHome(f.TempDir())
	if err := home.make(folderRegistries); err != nil {
		f.Fatal(err)
	}
	path := home.file(folderRegistries, fileID(IndexURL(base))+pinSuffix)
	if err := home.writePin(Pin{IndexURL: IndexURL(base), URL: base, Origin: "did:web:a.example", Checkpoint: []byte("x\n")}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		pin, err := home.PinOf(base)
		if err == nil && (pin.URL != base || pin.IndexURL != IndexURL(base) || pin.Origin == "") {
			t.Fatalf("accepted %+v", pin)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(`{"error":{"code":"a","detail":"b"}}`, "application/json")
	f.Add("\x1b]0;title\x07", "text/plain")
	f.Fuzz(func(t *testing.T, body, contentType string) {
		err := readError(&http.Response{StatusCode: 400, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))})
		text := err.Error()
		if text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\x07\r\x00\x7f\u009b") {
			t.Fatalf("%q", text)
		}
	})
}
