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

// Refused, but for what is not looked at: want is nil, and the name is still demo.
func TestReadPublishRefuses(t *testing.T) {
	long := binary.LittleEndian.AppendUint32(nil, maxMetadataBytes+1)
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"nothing":                      {nil, ErrFrame},
		"three bytes":                  {[]byte{1, 0, 0}, ErrFrame},
		"four bytes":                   {[]byte("tiny"), ErrTooLarge},
		"metadata over 1 MiB":          {long, ErrTooLarge},
		"metadata cut":                 {frame(metadata, "x")[:20], ErrFrame},
		"no crate length":              {frame(metadata, "x")[:4+len(metadata)], ErrFrame},
		"an empty crate":               {frame(metadata, ""), ErrFrame},
		"a crate over the limit":       {frame(metadata, "123456789"), ErrTooLarge},
		"empty metadata":               {frame("", "x"), ErrFrame},
		"no version":                   {frame(`{"name":"demo"}`, "x"), ErrFrame},
		"a null name":                  {frame(`{"name":null,"vers":"1.0.0"}`, "x"), ErrFrame},
		"a name in another case":       {frame(`{"Name":"demo","vers":"1.0.0"}`, "x"), ErrFrame},
		"a duplicate name":             {frame(`{"name":"demo","name":"evil","vers":"1.0.0"}`, "x"), ErrFrame},
		"a nested duplicate":           {frame(`{"name":"demo","vers":"1.0.0","x":{"a":1,"a":2}}`, "x"), ErrFrame},
		"trailing JSON":                {frame(metadata+"{}", "x"), ErrFrame},
		"deep JSON":                    {frame(`{"name":"demo","vers":"1.0.0","x":`+strings.Repeat("[", 500000), "x"), ErrFrame},
		"invalid UTF-8":                {frame("{\"name\":\"demo\",\"vers\":\"1.0.0\",\"x\":\"\xff\"}", "x"), ErrFrame},
		"metadata of all that follows": {binary.LittleEndian.AppendUint32(nil, 1<<32-1), ErrTooLarge},
		"a length with the high bit":   {append([]byte{30, 0, 0, 0x80}, metadata...), ErrTooLarge},
		"big-endian lengths":           {append([]byte{0, 0, 0, byte(len(metadata))}, metadata...), ErrTooLarge},
		"metadata into the crate":      {append([]byte{byte(len(metadata) + 4), 0, 0, 0}, frame(metadata, "x")[4:]...), ErrFrame},
		"metadata a byte short":        {append([]byte{byte(len(metadata) - 1), 0, 0, 0}, frame(metadata, "x")[4:]...), ErrFrame},
		"a crate of all that follows":  {append(frame(metadata, "")[:4+len(metadata)], 0xff, 0xff, 0xff, 0xff), ErrTooLarge},
		"half a crate length":          {frame(metadata, "")[:4+len(metadata)+2], ErrFrame},
		"metadata that is null":        {frame("null", "x"), ErrFrame},
		"metadata that is a list":      {frame("["+metadata+"]", "x"), ErrFrame},
		"metadata that is a string":    {frame(`"demo"`, "x"), ErrFrame},
		"metadata of two objects":      {frame(metadata+metadata, "x"), ErrFrame},
		"metadata with a BOM":          {frame("\ufeff"+metadata, "x"), ErrFrame},
		"metadata in UTF-16":           {frame("{\x00}\x00", "x"), ErrFrame},
		"metadata with NULs behind":    {frame(metadata+"\x00\x00", "x"), ErrFrame},
		"metadata with a comment":      {frame(`{/*x*/"name":"demo","vers":"1.0.0"}`, "x"), ErrFrame},
		"a comma at the end":           {frame(`{"name":"demo","vers":"1.0.0",}`, "x"), ErrFrame},
		"a number beyond all":          {frame(`{"name":"demo","vers":"1.0.0","x":1e999999}`, "x"), nil},
		"a lone surrogate":             {frame(`{"name":"demo","vers":"1.0.0","x":"\ud800"}`, "x"), ErrFrame},
		"a duplicate by an escape":     {frame(`{"name":"demo","n\u0061me":"evil","vers":"1.0.0"}`, "x"), ErrFrame},
		"names in two cases":           {frame(`{"name":"demo","NAME":"evil","vers":"1.0.0"}`, "x"), nil},
		"an unquoted name":             {frame(`{name:"demo","vers":"1.0.0"}`, "x"), ErrFrame},
		"a name that is a list":        {frame(`{"name":["demo"],"vers":"1.0.0"}`, "x"), ErrFrame},
		"a name that is a number":      {frame(`{"name":1,"vers":"1.0.0"}`, "x"), ErrFrame},
		"a version that is a number":   {frame(`{"name":"demo","vers":1.0}`, "x"), ErrFrame},
		"an empty name":                {frame(`{"name":"","vers":"1.0.0"}`, "x"), ErrName},
		"a name with NUL":              {frame(`{"name":"demo\u0000","vers":"1.0.0"}`, "x"), ErrName},
		"a name with a slash":          {frame(`{"name":"de\/mo","vers":"1.0.0"}`, "x"), ErrName},
		"a name of another alphabet":   {frame(`{"name":"d\u0435mo","vers":"1.0.0"}`, "x"), ErrName}, // a Cyrillic e
		"a name too long":              {frame(`{"name":"`+strings.Repeat("a", 65)+`","vers":"1.0.0"}`, "x"), ErrName},
		"a version with a path":        {frame(`{"name":"demo","vers":"1.0.0/../../x"}`, "x"), ErrVersion},
		"a version with NUL":           {frame(`{"name":"demo","vers":"1.0.0\u0000"}`, "x"), ErrVersion},
		"a version with a line break":  {frame(`{"name":"demo","vers":"1.0.0\n"}`, "x"), ErrVersion},
		"a version with a zero":        {frame(`{"name":"demo","vers":"01.0.0"}`, "x"), ErrVersion},
		"a version beyond 64 bits":     {frame(`{"name":"demo","vers":"99999999999999999999.0.0"}`, "x"), ErrVersion},
		"a version too long":           {frame(`{"name":"demo","vers":"1.0.0-`+strings.Repeat("a", 5000)+`"}`, "x"), ErrVersion},
		"a path as name":               {frame(`{"name":"../demo","vers":"1.0.0"}`, "x"), ErrName},
		"a device as name":             {frame(`{"name":"nul","vers":"1.0.0"}`, "x"), ErrName},
		"a bad version":                {frame(`{"name":"demo","vers":"1.0"}`, "x"), ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, _, err := ReadPublish(bytes.NewReader(c.body), Limits{CrateBytes: 8})
			if !errors.Is(err, c.want) || c.want == nil && p.Name != "demo" {
				t.Errorf("%+v, %v; want %v", p, err, c.want)
			}
			if err != nil && len(err.Error()) > 1024 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// A flipped bit in front of the crate is refused, or leaves alone what is taken
// from there: the name, the version, and the crate's bytes.
func TestEveryFlippedBitOfAFrameIsNoticedOrChangesNothing(t *testing.T) {
	body := frame(metadata, "CRATE")
	refused, other := 0, 0
	for bit := range (len(body) - len("CRATE")) * 8 {
		flipped := bytes.Clone(body)
		flipped[bit/8] ^= 1 << (bit % 8)
		p, crate, _, err := ReadPublish(bytes.NewReader(flipped), Limits{})
		var got []byte
		if err == nil {
			got, err = io.ReadAll(crate)
		}
		switch {
		case err != nil:
			refused++
		case string(got) != "CRATE":
			t.Errorf("bit %d: the crate is %q", bit, got)
		case p.Name != "demo" || p.Vers.String() != "1.0.0+b":
			other++ // another name or version: the record and the manifest must say it too
		}
	}
	if lengths := 8 * 8; refused < lengths || other == 0 {
		t.Errorf("%d flips refused, %d of another name", refused, other)
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
