package web

import (
	"cmp"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"phoenix-lab.org/aln-registry/registry/state"
)

// functions are those of the templates.
var functions = template.FuncMap{
	"tame":  tame,
	"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"size":  size,
	"count": count,
	"short": short,
	"brief": brief,
	"join":  strings.Join,
	"kinds": kindsSaid,
	"gone":  goneSays,
}

// notAsFirst is of a version that is not listed as it first was, where it is not known why.
const notAsFirst = "not as first seen"

// kindsSaid says in a word each what another registry said otherwise of a version later: changed
// of its bytes, altered of what these resolve to, dropped where it lists it no more. The first is why
// it is not listed as it first was, if that is so.
func kindsSaid(v state.UpstreamVersion) (kinds []string) {
	if !v.Gone.IsZero() {
		kinds = []string{cmp.Or(v.GoneAs(), notAsFirst)}
	}
	for _, c := range v.Other {
		if kind := c.Kind(); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// goneSays is what another registry does since it does not list a version as it first did.
func goneSays(v state.UpstreamVersion) string {
	switch v.GoneAs() {
	case "changed":
		return "named with other bytes"
	case "altered":
		return "listed with other dependencies or features"
	case "dropped":
		return "not listed any more"
	}
	return "not listed as it was"
}

// tame makes other people's text one that only looks like itself: control
// characters go, and those that turn the direction of what follows become visible.
func tame(s string) string { return strings.NewReplacer("\n", " ", "\t", " ").Replace(tameLines(s)) }

// tameLines is tame for text in which line breaks and tabs mean something.
func tameLines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case turnsText(r):
			return unicode.ReplacementChar
		case showsNothing(r):
			return -1
		}
		return r
	}, s)
}

// turnsText: Unicode's embeddings, overrides and isolates (UAX #9 §2).
func turnsText(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// showsNothing: control characters, spaces without width, and tags.
func showsNothing(r rune) bool {
	return unicode.IsControl(r) || r == 0x200b || r == 0x2060 || r == 0xfeff || r >= 0xe0000 && r <= 0xe007f
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return count(n, "byte")
	}
	value, names := float64(n)/unit, []string{"KiB", "MiB", "GiB"}
	for len(names) > 1 && value >= unit {
		value, names = value/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %s", value, names[0])
}

// count is a whole number and what is counted.
func count(n any, what string) string {
	number := fmt.Sprint(n)
	if number == "1" {
		return "1 " + what
	}
	if singular, ok := strings.CutSuffix(what, "y"); ok {
		what = singular + "ie"
	}
	return number + " " + what + "s"
}

// short is an identifier's beginning and end, for tables; its whole stands on
// the page that the row leads to.
func short(s any) string {
	text := fmt.Sprint(s)
	if len(text) <= 28 {
		return text
	}
	return text[:16] + "…" + text[len(text)-8:]
}

// brief is s with identifiers between its spaces and slashes made short.
func brief(s string) string {
	words := strings.Split(s, " ")
	for i, word := range words {
		parts := strings.Split(word, "/")
		for j, part := range parts {
			parts[j] = short(part)
		}
		words[i] = strings.Join(parts, "/")
	}
	return strings.Join(words, " ")
}

// webURL is s if it is an address on the web, "" otherwise.
func webURL(s string) string {
	if len(s) > 2048 {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
		return ""
	}
	return s
}
