package cratesioproxy

import (
	"errors"
	"net/http"
	"testing"
)

// Whether upstream has a crate is told however its name is spelled here and there, also where
// that is none of those that are asked for and the crate was seen before.
func TestWhetherUpstreamHasACrate(t *testing.T) {
	l := newLab(t, nil)
	l.evidence.private = "lab_"
	l.on("/us/ua/usual-name", text(line("usual-name", "1.0.0")))
	l.on("/so/-m/so-mixed_up-a-name", text(line("so-mixed_up-a-name", "1.0.0")))
	l.on("/tw/o-/two-mixed_words", text(line("two-mixed_words", "1.0.0")))
	l.on("/la/b-/lab-tools", text(line("lab-tools", "1.0.0")))
	if err := l.refresh("so-mixed_up-a-name"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"usual-name": true, "usual_name": true, "Usual_Name": true, "so_mixed_up_a_name": true, "so-mixed-up-a-name": true, "SO_mixed-up_a_name": true,
		"two_mixed_words": true, "no-such": false, "lab-tools": false, "lab_tools": false, "../x": false,
	} {
		if got, err := l.upstream.Has(t.Context(), name); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if n := l.requests("/la/b-/lab-tools"); n != 0 {
		t.Errorf("a private name is asked for %d times", n)
	}
	l.on("/br/ok/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	if got, err := l.upstream.Has(t.Context(), "broken"); got || !errors.Is(err, ErrRefused) {
		t.Errorf("what upstream does not tell: %v, %v", got, err)
	}
}

// Who asks no upstream does not know what they have, but for what was seen of them.
func TestOfflineUpstreamDoesNotTell(t *testing.T) {
	l := newLab(t, nil)
	l.on("/se/en/seen", text(line("seen", "1.0.0")))
	if err := l.refresh("seen"); err != nil {
		t.Fatal(err)
	}
	l.upstream.proxy.Offline = true
	if got, err := l.upstream.Has(t.Context(), "Seen"); !got || err != nil {
		t.Errorf("what was seen: %v, %v", got, err)
	}
	for _, name := range []string{"unseen", "un-seen"} {
		if got, err := l.upstream.Has(t.Context(), name); got || !errors.Is(err, ErrOffline) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if n := l.requests("/un/se/unseen"); n != 0 {
		t.Errorf("it is asked for %d times", n)
	}
}
