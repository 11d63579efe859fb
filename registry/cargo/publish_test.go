package cargo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func frame(metadata, crate string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(metadata)))
	b = append(b, metadata...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(crate)))
	return append(b, crate...)
}

const metadata = `{"name":"demo","vers":"1.0.0+b","deps":[],"unknown":{"a":[1]}}`

func TestReadPublishGivesMetadataThenTheCrate(t *testing.T) {
	body := frame(metadata, "CRATE")
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(body), "byte by byte": iotest.OneByteReader(bytes.NewReader(body)), "EOF with data": iotest.DataErrReader(bytes.NewReader(body)),
	} {
		p, crate, size, err := ReadPublish(r, Limits{})
		if err != nil || p.Name != "demo" || p.Vers.String() != "1.0.0+b" || size != 5 {
			t.Fatalf("%s: %+v, %d, %v", name, p, size, err)
		}
		got, err := io.ReadAll(crate)
		if err != nil || string(got) != "CRATE" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestReadPublishRefuses(t *testing.T) {
	long := binary.LittleEndian.AppendUint32(nil, maxMetadataBytes+1)
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"nothing":                {nil, ErrFrame},
		"three bytes":            {[]byte{1, 0, 0}, ErrFrame},
		"four bytes":             {[]byte("tiny"), ErrTooLarge},
		"metadata over 1 MiB":    {long, ErrTooLarge},
		"metadata cut":           {frame(metadata, "x")[:20], ErrFrame},
		"no crate length":        {frame(metadata, "x")[:4+len(metadata)], ErrFrame},
		"an empty crate":         {frame(metadata, ""), ErrFrame},
		"a crate over the limit": {frame(metadata, "123456789"), ErrTooLarge},
		"empty metadata":         {frame("", "x"), ErrFrame},
		"no version":             {frame(`{"name":"demo"}`, "x"), ErrFrame},
		"a null name":            {frame(`{"name":null,"vers":"1.0.0"}`, "x"), ErrFrame},
		"a name in another case": {frame(`{"Name":"demo","vers":"1.0.0"}`, "x"), ErrFrame},
		"a duplicate name":       {frame(`{"name":"demo","name":"evil","vers":"1.0.0"}`, "x"), ErrFrame},
		"a nested duplicate":     {frame(`{"name":"demo","vers":"1.0.0","x":{"a":1,"a":2}}`, "x"), ErrFrame},
		"trailing JSON":          {frame(metadata+"{}", "x"), ErrFrame},
		"deep JSON":              {frame(`{"name":"demo","vers":"1.0.0","x":`+strings.Repeat("[", 500000), "x"), ErrFrame},
		"invalid UTF-8":          {frame("{\"name\":\"demo\",\"vers\":\"1.0.0\",\"x\":\"\xff\"}", "x"), ErrFrame},
		"a path as name":         {frame(`{"name":"../demo","vers":"1.0.0"}`, "x"), ErrName},
		"a device as name":       {frame(`{"name":"nul","vers":"1.0.0"}`, "x"), ErrName},
		"a bad version":          {frame(`{"name":"demo","vers":"1.0"}`, "x"), ErrVersion},
	} {
		if p, _, _, err := ReadPublish(bytes.NewReader(c.body), Limits{CrateBytes: 8}); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, p, err, c.want)
		}
	}
}

func TestCrateReaderDemandsTheAnnouncedLength(t *testing.T) {
	body := frame(metadata, "CRATE")
	for name, b := range map[string][]byte{"cut": body[:len(body)-1], "one byte more": append(bytes.Clone(body), 0)} {
		_, crate, _, err := ReadPublish(bytes.NewReader(b), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(crate)
		if !errors.Is(err, ErrFrame) || len(got) > 5 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, again := crate.Read(make([]byte, 1)); again == nil {
			t.Errorf("%s: the error does not stay", name)
		}
	}
}

func TestReadPublishPassesTheReadersOwnError(t *testing.T) {
	own := errors.New("connection reset")
	body := frame(metadata, "CRATE")
	for n := range body {
		r := io.MultiReader(bytes.NewReader(body[:n]), iotest.ErrReader(own))
		_, crate, _, err := ReadPublish(r, Limits{})
		if err == nil {
			_, err = io.ReadAll(crate)
		}
		if !errors.Is(err, own) || errors.Is(err, ErrFrame) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func FuzzReadPublish(f *testing.F) {
	f.Add(frame(metadata, "CRATE"))
	f.Add(frame(metadata, "CRATE")[:30])
	f.Fuzz(func(t *testing.T, body []byte) {
		p, crate, size, err := ReadPublish(bytes.NewReader(body), Limits{CrateBytes: 1 << 20})
		if err != nil {
			var known *Problem
			if !errors.As(err, &known) {
				t.Errorf("not a Problem: %v", err)
			}
			return
		}
		if err := ValidateName(p.Name); err != nil {
			t.Error(err)
		}
		got, err := io.ReadAll(crate)
		if int64(len(got)) > size || err == nil && (int64(len(got)) != size || !bytes.HasSuffix(body, got)) {
			t.Errorf("%d of %d bytes, %v", len(got), size, err)
		}
	})
}
