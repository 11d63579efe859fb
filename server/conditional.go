package server

import (
	"net/http"
	"strings"
)

// matches says whether the client has what tag stands for, or anything at all: its
// If-None-Match, of which there may be several lines, names tag, by weak comparison, or is
// a star that stands alone (RFC 9110 §13.1.2). What comes after something that is no tag
// is not read: the client gets the whole answer.
func matches(r *http.Request, tag string) bool {
	lines := r.Header["If-None-Match"]
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		return true
	}
	for _, rest := range lines {
		for more := true; more; {
			var next string
			if next, rest, more = nextTag(rest); more && next == tag {
				return true
			}
		}
	}
	return false
}

// nextTag is the first tag of a list, with its quotes and without what makes it weak. There
// may be commas within a tag, and more than one between two.
func nextTag(list string) (tag, rest string, ok bool) {
	list = strings.TrimLeft(list, " \t,")
	list = strings.TrimPrefix(list, "W/")
	if list == "" || list[0] != '"' {
		return "", "", false
	}
	end := strings.IndexByte(list[1:], '"')
	if end < 0 {
		return "", "", false
	}
	tag, rest = list[:end+2], strings.TrimLeft(list[end+2:], " \t")
	return tag, rest, rest == "" || rest[0] == ','
}
