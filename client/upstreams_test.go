package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The provider answers for crates.io, and for other upstreams, through a registry that is
// known, with that registry's own read session, and signs nothing for them.
func TestProviderAnswersForWhatComesThroughTheRegistry(t *testing.T) {
	f, c, r := loggedIn(t)
	own := ask(t, c, request(r.pin.IndexURL, `"kind":"get","operation":"read"`))
	for _, index := range []string{CratesIOURL(r.pin.URL), UpstreamURL(r.pin.URL, "bonn"), UpstreamURL(r.pin.URL, "crates-io")} {
		read := ask(t, c, request(index, `"kind":"get","operation":"read"`))
		if read.Ok == nil || read.Ok.Token != own.Ok.Token || read.Ok.Cache != "expires" || f.count("POST /v1/session") != 1 {
			t.Errorf("%s: %+v, %+v", index, read.Ok, read.Err)
		}
		for _, operation := range []string{"publish", "yank", "owners"} {
			answer := ask(t, c, request(index, `"kind":"get","operation":"`+operation+`","name":"demo","vers":"1.0.0","cksum":"`+strings.Repeat("ab", 32)+`"`))
			if answer.Err == nil || !strings.Contains(answer.Err.Message, "only read") {
				t.Errorf("%s: %s: %+v", index, operation, answer.Ok)
			}
		}
	}
	for _, index := range []string{"sparse+https://other.example/crates-io/index/", IndexURL(r.pin.URL + "/upstream/a/b"), IndexURL(r.pin.URL + "/crates-iox")} {
		if answer := ask(t, c, request(index, `"kind":"get","operation":"read"`)); answer.Err == nil || answer.Err.Kind != "url-not-supported" {
			t.Errorf("%s: %+v, %+v", index, answer.Ok, answer.Err)
		}
	}
}

// prefetchFake answers lists as told, one after the other.
func prefetchFake(t *testing.T, f *fake, answers ...func(w http.ResponseWriter)) *[]string {
	var asked []string
	f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/prefetch") {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, r.URL.Path+" "+string(body))
		if len(answers) == 0 {
			t.Error("asked once too often")
			return true
		}
		next := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		next(w)
		return true
	}
	return &asked
}

func says(lines ...string) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) { fmt.Fprint(w, strings.Join(lines, "\n")+"\n") }
}

// A list that is cut goes on, what fails is tried again, and each outcome is told once.
func TestPrefetchGoesOnWhereItWasCut(t *testing.T) {
	f, _, r := loggedIn(t)
	asked := prefetchFake(
		t, f, says(`{"counts":{"done":false,"error":"","of":3,"began":"2026-01-02T03:04:05Z"}}`, `{"name":"a","version":"1.0.0","outcome":"fetched","bytes":5}`),
		says(`{"name":"a","version":"1.0.0","outcome":"held","bytes":5}`, `{"name":"b","version":"1.0.0","outcome":"failed","detail":"down"}`, `{"name":"c","version":"1.0.0","outcome":"denied","detail":"by rule \u001b[31m"}`, `{"counts":{"done":true,"error":"","of":3}}`),
		says(`{"name":"b","version":"1.0.0","outcome":"failed","detail":"down"}`, `{"counts":{"done":true,"error":"","of":3}}`),
	)
	var told []PrefetchOutcome
	list := PrefetchList{Upstream: "crates-io", Crates: []Prefetched{{"a", "1.0.0", ""}, {"b", "1.0.0", ""}, {"c", "1.0.0", strings.Repeat("0", 64)}}}
	began, err := r.Prefetch(t.Context(), list, func(o PrefetchOutcome, of int) {
		if told = append(told, o); of != 3 {
			t.Errorf("of %d", of)
		}
	})
	want := []PrefetchOutcome{{"a", "1.0.0", "fetched", 5, "", ""}, {"c", "1.0.0", "denied", 0, "by rule  [31m", ""}, {"b", "1.0.0", "failed", 0, "down", ""}}
	if err != nil || !reflect.DeepEqual(told, want) || began.Unix() != 1767323045 {
		t.Errorf("%v, %+v", err, told)
	}
	if len(*asked) != 3 {
		t.Fatalf("asked %q", *asked)
	}
	var body struct {
		Lock   string
		Crates []Prefetched
		Whole  []string `json:"all_versions_of"`
	}
	_, sent, _ := strings.Cut((*asked)[0], " ")
	if err := json.Unmarshal([]byte(sent), &body); err != nil || body.Lock != "" || !reflect.DeepEqual(body.Crates, list.Crates) || len(body.Whole) != 0 {
		t.Errorf("%v, %s", err, sent)
	}
}

// A list may name a version with two checksums, of which one is not to be had: that is told.
func TestPrefetchTellsOfEveryChecksum(t *testing.T) {
	f, _, r := loggedIn(t)
	one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
	prefetchFake(t, f, says(
		`{"name":"a","version":"1.0.0","outcome":"held","bytes":5,"checksum":"`+one+`"}`, `{"name":"a","version":"1.0.0","outcome":"absent","detail":"none","checksum":"`+two+`"}`,
		`{"counts":{"done":true,"error":"","of":2}}`))
	told := map[string]string{}
	list := PrefetchList{Upstream: "crates-io", Crates: []Prefetched{{"a", "1.0.0", one}, {"a", "1.0.0", two}}}
	if _, err := r.Prefetch(t.Context(), list, func(o PrefetchOutcome, _ int) { told[o.Checksum] += o.Outcome }); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{one: PrefetchHeld, two: PrefetchAbsent}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %v", told)
	}
}

// What of a list is to come is said once, and no more of it than a registry takes; one that does not
// know of that is given the list all the same.
func TestPrefetchSaysWhatIsToCome(t *testing.T) {
	f, _, r := loggedIn(t)
	done := says(`{"counts":{"done":true,"error":"","of":1}}`)
	asked := prefetchFake(t, f, func(w http.ResponseWriter) { refuse(w, 400, "bad-request", "of another form") }, done)
	list := PrefetchList{Upstream: "crates-io", Pin: "ci", Crates: []Prefetched{{"a", "1.0.0", ""}}}
	if _, err := r.Prefetch(t.Context(), list, func(PrefetchOutcome, int) {}); err != nil || len(*asked) != 2 || !strings.Contains((*asked)[0], `"lacking"`) || strings.Contains((*asked)[1], `"lacking"`) {
		t.Errorf("%v, asked %q", err, *asked)
	}
	asked = prefetchFake(t, f, done, done)
	both := PrefetchList{Upstream: "crates-io", Pin: "ci", Whole: []string{"all", "every"}}
	if _, err := r.Prefetch(t.Context(), both, func(PrefetchOutcome, int) {}); err != nil || len(*asked) != 2 || strings.Count((*asked)[0], `"version":""`) != 2 || strings.Contains((*asked)[1], `"lacking"`) {
		t.Errorf("%v, asked for all versions %q", err, *asked)
	}
	list.Crates = slices.Repeat([]Prefetched{{"a", "1.0.0", ""}, {"b", "1.0.0", strings.Repeat("1", 64)}}, 25_000)
	asked = prefetchFake(t, f, done)
	if _, err := r.Prefetch(t.Context(), list, func(PrefetchOutcome, int) {}); err != nil {
		t.Fatal(err)
	}
	for i, sent := range *asked {
		if _, said, told := strings.Cut(sent, `"lacking"`); told != (i == 0) || told && (strings.Count(said, `"name":"b"`) != mostLacking || strings.Contains(said, `"a"`)) {
			t.Errorf("part %d says what is to come: %t, %d bytes", i, told, len(said))
		}
	}
}

func TestPrefetchEndsWhereTheRegistryRefuses(t *testing.T) {
	f, _, r := loggedIn(t)
	asked := prefetchFake(t, f, func(w http.ResponseWriter) { refuse(w, 403, "scope", "no") })
	var refused *APIError
	_, err := r.Prefetch(t.Context(), PrefetchList{Upstream: "crates-io", Pin: "ci", Whole: []string{"a"}}, func(PrefetchOutcome, int) { t.Error("told") })
	if !errors.As(err, &refused) || refused.Status != 403 || len(*asked) != 1 {
		t.Errorf("%v after %d", err, len(*asked))
	}
	asked = prefetchFake(t, f, says(`{"name":"a","version":"1.0.0","outcome":"held"}`, `{"counts":{"done":true,"error":"not pinned","of":1}}`))
	if _, err = r.Prefetch(t.Context(), PrefetchList{Upstream: "crates-io", Pin: "ci", Whole: []string{"a"}}, func(PrefetchOutcome, int) {}); err == nil || !strings.Contains(err.Error(), "not pinned") || len(*asked) != prefetchRounds {
		t.Errorf("%v after %d", err, len(*asked))
	}
	prefetchFake(t, f, says(`nonsense`))
	if _, err := r.Prefetch(t.Context(), PrefetchList{Upstream: "crates-io", Whole: []string{"a"}}, func(PrefetchOutcome, int) {}); !errors.Is(err, ErrAnswer) {
		t.Errorf("%v", err)
	}
}
