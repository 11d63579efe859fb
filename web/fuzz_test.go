package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzPages asks for any page with any cookie, form and place to come from: no
// 5xx, nobody who may not read is told a name, and nobody is led elsewhere.
func FuzzPages(f *testing.F) {
	l := newLab(f)
	l.fill()
	for name, row := range pagesTable {
		method, _, _ := strings.Cut(name, " ")
		f.Add(method, row.path, "a.b.c", "session=x", "http://127.0.0.1:8585"+row.path, "same-origin")
		f.Add(method, row.path+"?page=2&q=%00&before=1&after=crate%2Fsecret_crate", "", "session=%zz", "http://127.0.0.1:8585//evil.example/", "")
	}
	for _, pair := range privatePages {
		f.Add("GET", pair[0], "", "", "", "")
	}
	f.Add("POST", "/me", "", "session="+url.QueryEscape(l.session(l.member, "read")), "http://127.0.0.1:8585/\\evil.example", "same-origin")
	member := l.session(l.member, "read")
	f.Fuzz(func(t *testing.T, method, target, cookie, form, referer, site string) {
		if strings.Contains(cookie, member) || strings.Contains(form, member) { // that would be a member
			return
		}
		for _, token := range []string{cookie, member} {
			r, ok := anyRequest(method, target, form)
			if !ok {
				return
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Referer", referer)
			r.Header.Set("Sec-Fetch-Site", site)
			if token != "" {
				r.Header.Set("Cookie", l.cookieName()+"="+token)
			}
			w := httptest.NewRecorder()
			l.pages.ServeHTTP(w, r)
			if w.Code >= 500 {
				t.Fatalf("%s %q: %d %s", method, target, w.Code, w.Body)
			}
			if to := w.Header().Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`)) {
				t.Fatalf("%s %q from %q leads to %q", method, target, referer, to)
			}
			if token != member {
				wantNoNames(t, method, target, w.Body.String())
			}
		}
	})
}

// wantNoNames: what a stranger reads holds no name but what they said themselves.
func wantNoNames(t *testing.T, method, target, text string) {
	t.Helper()
	said := strings.ToLower(target)
	if plain, err := url.QueryUnescape(target); err == nil {
		said += strings.ToLower(plain)
	}
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(text), secret) && !strings.Contains(said, secret) {
			t.Fatalf("%s %q tells %q", method, target, secret)
		}
	}
}

// anyRequest is what net/http would hand on of such a request line; false for
// what it would refuse.
func anyRequest(method, target, form string) (r *http.Request, ok bool) {
	if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-!#$%&'*+.^_`|~0123456789") != "" || !strings.HasPrefix(target, "/") {
		return nil, false
	}
	defer func() {
		if recover() != nil { // httptest's way of refusing
			r, ok = nil, false
		}
	}()
	return httptest.NewRequest(method, target, strings.NewReader(form)), true
}

// FuzzTexts: what stands on a page as somebody's text shows what it is, and what
// is an address there is one on the web.
func FuzzTexts(f *testing.F) {
	f.Add("a\u202eb\u2066c\u200b\x00\x1b[2J\n")
	f.Add("https://home.example/?a=<b>")
	f.Add("HTTPS://user@host/")
	f.Add("java\tscript:alert(1)")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range tame(text) {
			if turnsText(r) || showsNothing(r) || r == '\n' {
				t.Fatalf("%U is left of %q", r, text)
			}
		}
		if s := webURL(text); s != "" && (s != text || !strings.HasPrefix(strings.ToLower(s), "http://") && !strings.HasPrefix(strings.ToLower(s), "https://")) {
			t.Fatalf("%q is taken for an address", text)
		}
		_ = short(text)
	})
}
