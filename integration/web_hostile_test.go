package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// moreHostileTexts are hostileTexts too: pictures and styles that carry others
// inside, what newer browsers take, and what a sanitiser's parser and the
// browser's read differently.
var moreHostileTexts = []string{
	"<img src='data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"RUN\"><script>RUN</script></svg>'>\n\n![s](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)\n\n<object type=image/svg+xml data='data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"RUN\"/>'></object>\n\n<embed src='data:text/html,<script>RUN</script>'>\n\n<iframe src='data:text/html,<script>parent.pwned=1</script>'></iframe>",
	"<svg><a xlink:href='javascript:RUN'><text y=20>click</text></a><foreignObject><iframe srcdoc='<script>RUN</script>'></iframe><img src=x onerror=RUN></foreignObject><image href=BAD/svg-image.png /><feImage href=BAD/fe.png /><set attributeName=onmouseover to=RUN /><style>@import 'BAD/svg.css';</style><title><img src=x onerror=RUN></title><desc><script>RUN</script></desc></svg>\n\n<svg><script href='data:,RUN' /></svg>\n\n<svg><handler type='text/javascript' ev:event=load>RUN</handler></svg>",
	"<style>@import url(BAD/i1.css);@import \"BAD/i2.css\";@font-face{font-family:f;src:url(BAD/f.woff)}*{font-family:f;background:image-set('BAD/set.png' 1x);cursor:url(BAD/c.cur),auto;list-style:url(BAD/ls.png)}:root{--x:url(BAD/v.png)}input[value^=a]{background:url(BAD/leak?a)}</style>\n\n<p style='background-image:url(&#34;BAD/e.png&#34;)'>x</p>\n\n<p style=\"x:expression(RUN);behavior:url(BAD/b.htc);-moz-binding:url(BAD/m.xml#x)\">x</p>\n\n<link rel='stylesheet' href='data:text/css,@import url(BAD/d.css)'>\n\n<link rel=modulepreload href=BAD/m.js>\n\n<link rel=dns-prefetch href=BAD>\n\n<link rel=manifest href=BAD/manifest>",
	"[a](javascript&colon;RUN) [b](java&Tab;script:RUN) [c](&NewLine;javascript:RUN) [d](javascript&#x3A;RUN) [e](&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A;RUN) [f](<javascript:RUN>) [g](feed:javascript:RUN) [h](view-source:javascript:RUN) [i](blob:RUN) [j](file:///etc/passwd) [k](\\javascript:RUN) [l](//BAD/x) [m](http:javascript:RUN)\n\n<a href=\"java&#0;script:RUN\">n</a> <a href=\"&#14; javascript:RUN\">o</a> <a href='jAvAsCrIpT&#58;RUN'>p</a> <data:text/html,x> <JaVaScRiPt:RUN> [q]: <javascript:RUN>\n\n[r][q]\n\n![s](javascript:RUN)\n\n[^1]: [t](javascript:RUN)\n\nx[^1]",
	"<template shadowrootmode=open><script>RUN</script><img src=x onerror=RUN></template>\n\n<div popover id=pop ontoggle=RUN onbeforetoggle=RUN>p</div><button popovertarget=pop autofocus>b</button>\n\n<dialog open onclose=RUN><form method=dialog><button>Sign in</button></form></dialog>\n\n<button command=show-modal commandfor=pop>c</button>\n\n<x onfocusin=RUN tabindex=1 autofocus>f</x>\n\n<p onpointerenter=RUN oncontentvisibilityautostatechange=RUN style=content-visibility:auto>v</p>\n\n<fencedframe src=BAD/ff></fencedframe>\n\n<search onanimationend=RUN>s</search> <p is=pwned-element slot=x part=y exportparts=z>i</p>",
	"<noscript><img title=\"</noscript><script>RUN</script>\"></noscript>\n\n<noembed><img title=\"</noembed><img src=x onerror=RUN>\"></noembed>\n\n<noframes><p title=\"</noframes><img src=x onerror=RUN>\"></noframes>\n\n<iframe><p title=\"</iframe><img src=x onerror=RUN>\"></iframe>\n\n<svg><![CDATA[><img src=x onerror=RUN>]]></svg>\n\n<math><annotation-xml encoding='text/html'><script>RUN</script></annotation-xml></math>\n\n<math><mi><table><mglyph><style><img src=x onerror=RUN></style></math>\n\n<table><td><svg><desc><td><img src=x onerror=RUN></svg></table>\n\n<a><table><a href='</table><img src=x onerror=RUN>'>x",
	"<p title=\"`<img src=x onerror=RUN>`\">a</p>\n\n<p title='a\"><img src=x onerror=RUN>'>b</p>\n\n<p title=a&#34;&#62;&#60;img&#32;src=x&#32;onerror=RUN&#62;>c</p>\n\n&lt;img src=x onerror=RUN&gt; &amp;lt;script&amp;gt;RUN&amp;lt;/script&amp;gt; &ltimg src=x onerror=RUN&gt &#x3cscript&#x3eRUN&#x3c/script&#x3e\n\n<\u0000script>RUN</script> <scr\u0000ipt>RUN</script> <img\u000csrc=x\u000conerror=RUN> <img/src=x/onerror=RUN> <img src=x onerror\n=\nRUN> <IMG \"\"\"><SCRIPT>RUN</SCRIPT>\"> <<script>RUN//<</script>\n\n<a href=\"BAD/x\" \"onmouseover=RUN\">d</a> <a/href=BAD/y/onclick=RUN>e</a>",
	"<meta charset=utf-7>+ADw-script+AD4-RUN+ADw-/script+AD4-\n\n<meta http-equiv=Content-Security-Policy content=\"script-src * 'unsafe-inline'\">\n\n<meta http-equiv=set-cookie content='aln-session=x'>\n\n<meta name=referrer content=unsafe-url>\n\n<META HTTP-EQUIV='refresh' CONTENT='0; URL=javascript:RUN'>\n\n<base target=_top href='BAD/'>\n\n<html manifest=BAD/appcache>\n\n<head profile=BAD/profile>\n\n<applet code=BAD/a.class></applet>\n\n<bgsound src=BAD/b.mid>\n\n<layer src=BAD/l></layer>\n\n<isindex action=BAD/ii type=image src=BAD/is.png>\n\n<keygen autofocus onfocus=RUN>\n\n<input type=image src=BAD/i2.png formaction=BAD/fa>\n\n<img lowsrc=BAD/low.png dynsrc=BAD/dyn.avi longdesc=BAD/ld>",
}

// reflections are addresses whose own text a page, or an answer of the API,
// might show: searches, pages that are not there, arguments that are refused.
var reflections = func() []string {
	const script = "%3Cscript%3Ealert(1)%3C%2Fscript%3E"
	const image = "%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
	return []string{
		"/search?q=" + script, "/search?q=" + image, "/search?q=%22%20onfocus%3Dalert(1)%20autofocus%20", "/search?q='-alert(1)-'", "/search?q=%00%3Cscript%3E", "/search?q=%E2%80%AEtxet",
		"/search?q=x&page=" + script, "/search?q=" + image + "&page=2", "/search?" + script, "/search?q=%{{7*7}}", "/search?q=javascript:alert(1)",
		"/" + script, "/" + image, "/artifacts/" + script, "/artifacts/crate/" + image, "/artifacts/crate/hostile-0/" + script, "/artifacts/crate?page=" + image,
		"/artifacts/aln-shard?after=" + script, "/artifacts/crate/hostile-0?page=" + script, "/log?before=" + image, "/record/" + script, "/assets/" + image,
		"/upstreams/crates-io?q=" + script, "/upstreams/crates-io?q=" + image, "/upstreams/crates-io?after=" + script, "/upstreams/" + image, "/upstreams/crates-io/crates/" + script,
		"/upstreams?after=" + image, "/upstreams/crates-io/alarms?before=" + script, "/audit?rule=" + image, "/record/2/" + script,
		"/#" + script, "//evil.example/" + script, "/%2f%2fevil.example", "/%5cevil.example", "/;/" + image, "/..%2f" + script,
	}
}()

// raw are answers of the API that repeat what they were asked with; a browser
// shows them as text, or not at all.
var raw = []string{
	"/index/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/v1/heads/%3Cimg%20src=x%20onerror=alert(1)%3E", "/v1/records/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/api/v1/crates/%3Cscript%3Ealert(1)%3C%2Fscript%3E/owners",
	"/v1/artifacts/%3Csvg%20onload=alert(1)%3E", "/log/tile/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/.well-known/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
}

var identity = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// hostileRecords enters records whose free texts try it: a member's addresses,
// settings, the reason of a vote. It returns the pages that tell of them.
func (u *user) hostileRecords(l *lab, fill *strings.Replacer) (pages []string) {
	u.t.Helper()
	first, second := l.logSize(), l.newMember()
	aln := func(who *user, args ...string) string {
		u.t.Helper()
		return must(u.t, who.aln(u.folder, args...)).stdout
	}
	aln(u, "member", "add", second.did(), "--role", "publisher", "--role", "on.click-alert",
		"--stakeholder-addr", fill.Replace("<img/src=x/onerror=RUN>"), "--stakeholder-addr", "'><svg/onload=alert(1)>", "--stakeholder-addr", "javascript:alert(1)")
	_, _, _, err := u.registry().ChangeSettings(context.Background(), nil, func(s *record.Registry) error { // past what the command refuses
		s.Admins, s.AdminThreshold = append(s.Admins, did.DID(second.did())), 2
		s.PrivateNames = append(s.PrivateNames, "<script>alert(1)</script>")
		s.DependencyRegistries = append(s.DependencyRegistries, fill.Replace("sparse+BAD/'><script>alert(1)</script>/"))
		return nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
	proposal := identity.FindString(aln(u, "settings", "set", "--min-age-days", "1"))
	aln(second, "approve", proposal, "--reject", "--reason", fill.Replace("</pre><script>RUN</script><img src=BAD/reason.png onerror=RUN> \u202etxt.\u202c \u2066x\u2069\u200b"))
	for index := first; index < l.logSize(); index++ {
		pages = append(pages, fmt.Sprintf("/record/%d", index))
	}
	return pages
}

// What the API answers is no page, whatever stands in it.
func TestAnswersThatRepeatWhatTheyWereAskedRunNothing(t *testing.T) {
	l := newLab(t)
	b := newBrowser(t)
	for _, path := range raw {
		resp, err := http.Get(l.url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if kind := resp.Header.Get("Content-Type"); kind != "text/plain; charset=utf-8" && kind != "application/json" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, resp.Header)
		}
		b.open(l.url + path)
		b.wantQuiet(path, l.url)
	}
	// A form on another site does not sign out who is signed in here.
	l.operator.login(l, l.operator.folder)
	session := l.operator.session("read", 15*time.Minute)
	b.open(l.url + "/me")
	b.do(chromedp.SetValue(chromedp.CSS("#session"), session))
	b.leave("form.signin button")
	cookies := b.cookies(l.url)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form id=f method=post action="%s/me/sign-out"></form><script>f.submit()</script>`, l.url)
	}))
	defer elsewhere.Close()
	b.open(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1))
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && run(b, chromedp.Location()) != l.url+"/me/sign-out"; {
		time.Sleep(50 * time.Millisecond)
	}
	wantSays(t, b.text(), "came from another site")
	if left := b.cookies(l.url); len(cookies) != 1 || len(left) != 1 || left[0].Value != session {
		t.Errorf("after another site's form: %+v", left)
	}
}
