package translog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/storage"
)

var (
	recordCID   = storage.CIDOf([]byte("record"))
	documentCID = storage.CIDOf([]byte("document"))
)

func TestEntryHasItsOneForm(t *testing.T) {
	plain := `{"v":1,"time":"2026-01-02T03:04:05Z","record":"` + recordCID.String() + `","did_document":null}`
	web := `{"v":1,"time":"2026-01-02T03:04:05Z","record":"` + recordCID.String() + `","did_document":"` + documentCID.String() + `"}`
	for want, entry := range map[string]Entry{
		plain: {Time: testTime, Record: recordCID},
		web:   {Time: testTime.In(time.FixedZone("elsewhere", 3600)), Record: recordCID, DIDDocument: documentCID},
	} {
		got, err := entry.Marshal()
		if err != nil || string(got) != want {
			t.Errorf("Marshal = %s, %v, want %s", got, err, want)
		}
		parsed, err := ParseEntry([]byte(want))
		if err != nil || !parsed.Time.Equal(entry.Time) || parsed.Record != entry.Record || parsed.DIDDocument != entry.DIDDocument {
			t.Errorf("ParseEntry(%s) = %+v, %v", want, parsed, err)
		}
	}
}

func TestEntryThatCannotBeWrittenIsRefused(t *testing.T) {
	for name, entry := range map[string]Entry{
		"no record":   {Time: testTime},
		"fraction":    {Time: testTime.Add(time.Millisecond), Record: recordCID},
		"before 1970": {Time: time.Unix(-1, 0), Record: recordCID},
		"zero time":   {Record: recordCID},
		"year 10000":  {Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), Record: recordCID},
	} {
		if got, err := entry.Marshal(); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: Marshal = %s, %v, want ErrEntry", name, got, err)
		}
	}
}

func TestParseEntryRefusesEveryOtherSpelling(t *testing.T) {
	id, doc := recordCID.String(), documentCID.String()
	good := `{"v":1,"time":"2026-01-02T03:04:05Z","record":"` + id + `","did_document":"` + doc + `"}`
	if _, err := ParseEntry([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":           "",
		"white space":     strings.Replace(good, `,"record"`, `, "record"`, 1),
		"final newline":   good + "\n",
		"trailing object": good + good,
		"other version":   strings.Replace(good, `"v":1`, `"v":2`, 1),
		"other order":     `{"time":"2026-01-02T03:04:05Z","v":1,"record":"` + id + `","did_document":null}`,
		"unknown member":  strings.Replace(good, `}`, `,"x":1}`, 1),
		"duplicate":       strings.Replace(good, `{`, `{"v":1,`, 1),
		"fraction":        strings.Replace(good, `05Z`, `05.0Z`, 1),
		"offset":          strings.Replace(good, `05Z`, `05+00:00`, 1),
		"no such day":     strings.Replace(good, `01-02`, `02-30`, 1),
		"upper-case CID":  strings.Replace(good, id, strings.ToUpper(id), 1),
		"escaped CID":     strings.Replace(good, id, `\u0062`+id[1:], 1),
		"null record":     strings.Replace(good, `"`+id+`"`, `null`, 1),
		"empty document":  strings.Replace(good, doc, ``, 1),
		"quoted null":     strings.Replace(good, doc, `null`, 1),
		"unquoted":        strings.Replace(good, `"`+doc+`"`, doc, 1),
		"extra quotes":    strings.Replace(good, `"`+doc+`"`, `""`+doc+`""`, 1),
		"too long":        good + strings.Repeat(" ", MaxEntryBytes),
	} {
		if e, err := ParseEntry([]byte(bad)); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: ParseEntry(%q) = %+v, %v, want ErrEntry", name, bad, e, err)
		}
	}
	for bit := range len(good) * 8 {
		changed := flip([]byte(good), bit)
		if e, err := ParseEntry(changed); err == nil {
			if again, err := e.Marshal(); err != nil || !bytes.Equal(again, changed) {
				t.Fatalf("bit %d: %s parsed, but is written %s, %v", bit, changed, again, err)
			}
		}
	}
}

func TestBundleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, MaxEntryBytes), 1, BundleWidth).Draw(t, "entries")
		var bundle []byte
		for _, entry := range entries {
			var err error
			if bundle, err = AppendBundle(bundle, entry); err != nil {
				t.Fatal(err)
			}
		}
		parsed, err := ParseBundle(bundle)
		if err != nil || len(parsed) != len(entries) {
			t.Fatalf("%d entries, %v, want %d", len(parsed), err, len(entries))
		}
		for i := range entries {
			if !bytes.Equal(parsed[i], entries[i]) {
				t.Fatalf("entry %d differs", i)
			}
		}
		cut := rapid.IntRange(1, len(entries[len(entries)-1])+1).Draw(t, "cut")
		if _, err := ParseBundle(bundle[:len(bundle)-cut]); !errors.Is(err, ErrBundle) {
			t.Fatalf("cut by %d: %v, want ErrBundle", cut, err)
		}
	})
}

func TestBadBundlesAreRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty":             {},
		"half a length":     {0},
		"empty entry":       {0, 0},
		"missing byte":      {0, 2, 'x'},
		"half a 2nd length": {0, 1, 'x', 0},
		"entry too long":    append([]byte{0x02, 0x01}, make([]byte, 513)...),
		"too many":          bytes.Repeat([]byte{0, 1, 'x'}, BundleWidth+1),
		"too large":         make([]byte, MaxBundleBytes+1),
	} {
		if entries, err := ParseBundle(data); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %d entries, %v, want ErrBundle", name, len(entries), err)
		}
	}
	for _, length := range []int{0, MaxEntryBytes + 1, 1 << 16} {
		if _, err := AppendBundle(nil, make([]byte, length)); !errors.Is(err, ErrBundle) {
			t.Errorf("AppendBundle of %d bytes: %v, want ErrBundle", length, err)
		}
	}
}

func TestObjectKeys(t *testing.T) {
	for key, parse := range map[string]func(string) (int64, error){
		EntryKey(7): ParseEntryKey, CheckpointKey(7): ParseCheckpointKey,
	} {
		if n, err := parse(key); err != nil || n != 7 {
			t.Errorf("%s: %d, %v", key, n, err)
		}
	}
	if got := EntryKey(7); got != "log/entry/0000000000000007" {
		t.Errorf("EntryKey(7) = %s", got)
	}
	if got := CheckpointKey(MaxSize); got != "log/checkpoint/9007199254740991" {
		t.Errorf("CheckpointKey(MaxSize) = %s", got)
	}
	if _, err := ParseEntryKey(EntryKey(MaxSize)); !errors.Is(err, ErrKey) {
		t.Errorf("an entry beyond the last: %v, want ErrKey", err)
	}
	for _, key := range []string{"", "log/entry/", "log/entry/7", "log/entry/00000000000000007", "log/entry/+000000000000007",
		"log/entry/-000000000000007", "log/entry/000000000000000a", "log/entry/0000_0000_000007", "log/entry/9999999999999999",
		"log/checkpoint/0000000000000007", "/log/entry/0000000000000007", "log/entry/000000000000000\n"} {
		if n, err := ParseEntryKey(key); !errors.Is(err, ErrKey) {
			t.Errorf("ParseEntryKey(%q) = %d, %v, want ErrKey", key, n, err)
		}
	}
}
