package content

// text looks for a row, and for the flags, in source text of whatever language: it
// takes numbers and names out of it and passes over everything else. The zero
// text is ready; it goes on from write to write and ends with end.
type text struct {
	word   [2][]byte // the one under way and the one before it, in turns
	turn   int
	marks  marks
	slash  bool // a backslash is right before the word under way
	views  views
	byName named
	hexes  hexes
	flags  flags
	escape run // bytes of a string that are written as escapes
	reason string
}

// mostWord is how much of a word is looked at at once.
const mostWord = 256

// hexTail is how much of a longer word is looked at again with what follows.
const hexTail = 33

// Classes of bytes.
const (
	classMark  = iota
	classWord  // letters, digits and _
	classNone  // NUL, which makes UTF-16 of ASCII
	classSpace // and tab
)

var classes = func() (c [256]byte) {
	for b := range c {
		switch {
		case isDigit(byte(b)) || isLetter(byte(b)) || b == '_':
			c[b] = classWord
		case b == 0:
			c[b] = classNone
		case b == ' ' || b == '\t':
			c[b] = classSpace
		}
	}
	return c
}()

func isDigit(b byte) bool  { return b-'0' < 10 }
func isLetter(b byte) bool { return b|0x20-'a' < 26 }

// write looks at p and reports whether something was found, which reason names.
func (t *text) write(p []byte) bool {
	for i := 0; i < len(p); {
		switch classes[p[i]] {
		case classNone:
			i++
		case classWord:
			from := i
			for i++; i < len(p) && classes[p[i]] == classWord; i++ {
			}
			if i == len(p) || classes[p[i]] == classNone || !t.passes(p[from:i]) {
				t.extend(p[from:i])
			}
		case classSpace:
			if len(t.word[t.turn]) > 0 {
				t.endWord()
			}
			t.escape.n, t.slash, t.marks.before = 0, false, 0
			for i++; i < len(p) && classes[p[i]] == classSpace; i++ {
			}
		default:
			if len(t.word[t.turn]) > 0 {
				t.endWord()
			}
			t.mark(p[i])
			i++
		}
		if t.reason != "" {
			return true
		}
	}
	return false
}

// passes takes w, where it is a whole word, by a short way that is right for a name of which
// there is nothing to be noted but that it was there: most words of a text are such.
func (t *text) passes(w []byte) bool {
	last := len(w) - 1
	if len(t.word[t.turn]) > 0 || t.slash || t.flags.open > 0 || len(w) >= 16 || isDigit(w[0]) || isDigit(w[last]) ||
		last > 0 && flagEnds.has(w[last-1], w[last]) {
		return false
	}
	t.escape.n = 0
	t.flags.apart++
	t.word[t.turn] = append(t.word[t.turn], w...)
	t.turn = 1 - t.turn
	t.word[t.turn] = t.word[t.turn][:0]
	t.marks.since, t.marks.breaks, t.marks.before = 0, false, 0
	return true
}

// end looks at what is left over at the end of the text.
func (t *text) end() bool {
	if len(t.word[t.turn]) > 0 {
		t.endWord()
	}
	t.flags.settle()
	t.judgeFlags()
	return t.reason != ""
}

// extend adds to the word under way. What is too long to be a name or number is
// looked at as digits, piece by piece.
func (t *text) extend(part []byte) {
	w := &t.word[t.turn]
	for len(*w)+len(part) > mostWord {
		n := mostWord - len(*w)
		*w = append(*w, part[:n]...)
		part = part[n:]
		t.note(t.hexes.word(*w), byDigits)
		*w = append((*w)[:0], (*w)[mostWord-hexTail:]...)
	}
	*w = append(*w, part...)
}

// What gives an implementation away, in words.
const (
	byRow    = "the message permutation"
	byDigits = "the message permutation as digits"
	byEscape = "the message permutation in a string"
	byData   = "the message permutation in data"
	byFlags  = "the domain flags"
)

func (t *text) note(hit bool, by string) {
	if hit && t.reason == "" {
		t.reason = by
	}
}

// endWord takes the word under way, of which there is something, as a whole.
func (t *text) endWord() {
	w := t.word[t.turn]
	switch {
	case t.slash && t.escaped(w):
	case isDigit(w[0]):
		t.number(w)
	default:
		t.name(w)
	}
	t.slash = false
	t.marks.since, t.marks.breaks, t.marks.before = 0, false, 0
}

// name takes a name. Where digits end it (m2), they index what is before them.
func (t *text) name(w []byte) {
	t.escape.n = 0
	t.flags.name(w)
	t.judgeFlags()
	t.note(len(w) >= 16 && t.hexes.word(w), byDigits)
	if stem, v, ok := tail(w); ok {
		t.note(t.byName.push(stem, v), byRow)
	}
	t.turn = 1 - t.turn
	t.word[t.turn] = t.word[t.turn][:0]
}

// number takes a number: for the views of the text, for the name that it indexes,
// and as digits.
func (t *text) number(w []byte) {
	t.escape.n = 0
	n := parseNumber(w)
	t.note(t.views.push(n, &t.marks), byRow)
	if name := t.word[1-t.turn]; len(name) > 0 && t.marks.since <= 2 && !t.marks.breaks {
		t.note(t.byName.push(name, n.value), byRow)
	}
	t.note(len(w) > 2 && t.hexes.word(w), byDigits)
	t.flags.number(n.value)
	t.judgeFlags()
	t.word[t.turn] = w[:0]
}

// escaped takes a word that follows a backslash if it begins with the escape of a
// byte, in the way of C, Rust or Python.
func (t *text) escaped(w []byte) bool {
	v, size := escapeOf(w)
	if size == 0 {
		return false
	}
	t.note(t.escape.push(v), byEscape)
	t.note(t.views.escape(w[0], v), byRow)
	if size < len(w) {
		t.escape.n = 0
	}
	t.word[t.turn] = w[:0]
	return true
}

// escapeOf reads what follows a backslash: the byte's value, and how many bytes
// of w say it, 0 for no such escape.
func escapeOf(w []byte) (value uint64, size int) {
	if w[0]|0x20 == 'x' {
		for size = 1; size < len(w) && size < 3 && hexValue(w[size]) < 16; size++ {
			value = value<<4 | uint64(hexValue(w[size]))
		}
		if size == 1 {
			return 0, 0
		}
		return value, size
	}
	for size < len(w) && size < 3 && w[size]-'0' < 8 {
		value = value<<3 | uint64(w[size]-'0')
		size++
	}
	if size > 0 {
		return value, size
	}
	switch w[0] {
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case 'a':
		return '\a', 1
	case 'b':
		return '\b', 1
	case 'v':
		return '\v', 1
	case 'f':
		return '\f', 1
	}
	return 0, 0
}

// mark takes a byte between words that is no space.
func (t *text) mark(b byte) {
	if b != '\\' {
		t.escape.n = 0
	}
	t.marks.take(b)
	if t.flags.open > 0 {
		t.flags.mark(b)
		t.judgeFlags()
	}
	t.slash = b == '\\'
}

func (t *text) judgeFlags() {
	if t.flags.changed {
		t.flags.changed = false
		t.note(t.flags.recognised(), byFlags)
	}
}

// tail splits a name that ends in one or two digits into what is before them and
// their number.
func tail(w []byte) (stem []byte, v uint64, ok bool) {
	i := len(w)
	for i > 0 && isDigit(w[i-1]) {
		i--
	}
	if i == 0 || i == len(w) || len(w)-i > 2 {
		return nil, 0, false
	}
	for _, b := range w[i:] {
		v = v*10 + uint64(b-'0')
	}
	return w[:i], v, true
}
