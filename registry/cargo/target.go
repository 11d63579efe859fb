package cargo

import (
	"strings"
	"unicode"
)

const maxTargetBytes = 1024

// isTarget checks a target: a triple, or a cfg(…) that cargo can read. Cargo
// gives up the whole index line over a cfg that it cannot read. What is well
// formed but unknown to cargo never matches, and so is harmless.
func isTarget(s string) bool {
	if len(s) > maxTargetBytes || strings.ContainsFunc(s, unicode.IsControl) {
		return false
	}
	if inner, ok := strings.CutPrefix(s, "cfg("); ok && strings.HasSuffix(inner, ")") {
		p := cfgParser{rest: strings.TrimSuffix(inner, ")")}
		return p.expr() && strings.Trim(p.rest, " ") == ""
	}
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
	})
}

// cfgParser recognises Cargo's grammar of cfg expressions (Cargo reference,
// "Platform specific dependencies"; Rust reference, "Conditional compilation"):
//
//	expr = ("all" | "any") "(" [expr {"," expr} [","]] ")" | "not" "(" expr ")" | ident ["=" string]
//
// true and false are identifiers here. It recurses at most maxTargetBytes/4 deep.
type cfgParser struct {
	rest string
}

func (p *cfgParser) expr() bool {
	switch token := p.token(); {
	case token == "all" || token == "any":
		return p.take("(") && p.list()
	case token == "not":
		return p.take("(") && p.expr() && p.take(")")
	case identBytes(token) == 0:
		return false
	}
	return !p.take("=") || strings.HasPrefix(p.token(), `"`)
}

// list reads what follows the "(" of all or any.
func (p *cfgParser) list() bool {
	for !p.take(")") {
		if !p.expr() {
			return false
		}
		if !p.take(",") {
			return p.take(")")
		}
	}
	return true
}

// take reads the next token if it is want.
func (p *cfgParser) take(want string) bool {
	ahead := *p
	if ahead.token() != want {
		return false
	}
	*p = ahead
	return true
}

// token reads the next token; "", and no further, at the end and at what is none.
// Strings have no escapes.
func (p *cfgParser) token() string {
	s := strings.TrimLeft(p.rest, " ")
	n := identBytes(s)
	switch {
	case s == "":
	case strings.IndexByte("(),=", s[0]) >= 0:
		n = 1
	case s[0] == '"':
		if end := strings.IndexByte(s[1:], '"'); end >= 0 {
			n = end + 2
		}
	}
	p.rest = s[n:]
	return s[:n]
}

// identBytes is the length of the identifier, raw (r#x) or not, at the front of s.
func identBytes(s string) int {
	raw := 0
	if strings.HasPrefix(s, "r#") {
		raw = 2
	}
	n := raw
	for n < len(s) && (s[n] == '_' || 'a' <= s[n] && s[n] <= 'z' || 'A' <= s[n] && s[n] <= 'Z' || n > raw && '0' <= s[n] && s[n] <= '9') {
		n++
	}
	if n == raw {
		return 0
	}
	return n
}
