package content

// Views of a text: with everything, and without what some languages take for a
// comment. A number in a comment is passed over in the view of who writes such.
const (
	viewAll   = iota
	viewC     // without // and /* */
	viewHash  // without #
	viewSemi  // without ;
	viewCount // how many
)

// marks follows what is between the words: comments, and how far the last word is.
type marks struct {
	line, block, hash, semi bool // in such a comment
	before                  byte // the mark right before, 0 for something else
	since                   int  // marks since the last word, white space not counted
	breaks                  bool // one of them ends what belongs together
}

// breaking are the marks that end what belongs together.
var breaking = marked(";,={}):")

func marked(these string) (m [256]bool) {
	for i := range len(these) {
		m[these[i]] = true
	}
	return m
}

// take takes the mark b, which is no space.
func (m *marks) take(b byte) {
	before := m.before
	m.before = b
	switch b {
	case '\n':
		m.line, m.hash, m.semi = false, false, false
	case '/':
		if m.block && before == '*' {
			m.block, m.before = false, 0 // so that it begins no other comment
		} else if !m.block {
			m.line = m.line || before == '/'
		}
	case '*':
		if !m.block && !m.line && before == '/' {
			m.block, m.before = true, 0 // so that it does not end this one
		}
	case '#':
		m.hash = true
	case ';':
		m.semi = true
	}
	m.breaks = m.breaks || breaking[b]
	m.since++
}

// hidden reports whether the words of now are a comment in a view.
func (m *marks) hidden(view int) bool {
	switch view {
	case viewC:
		return m.line || m.block
	case viewHash:
		return m.hash
	case viewSemi:
		return m.semi
	}
	return false
}
