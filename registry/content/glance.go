package content

// glance is a first look at a source text, several times faster than text: it follows the
// numbers in it as text does, and passes over nearly all else. It keeps the text until it has what
// an implementation cannot do without, and says then that text is to look at all of it, from its
// beginning. Of most files that never comes.
//
// It lets nothing pass that text would find. Of numbers behind a name and of escapes it knows
// only which values there were, of which a row needs each; of the flags, whether there is one of
// the names of telling. Whoever teaches text another spelling teaches it here: FuzzGlance compares them.
type glance struct {
	held  []byte
	at    int // up to where held was looked at
	views views
	hexes hexes
	marks marks
	mark  int // where the last one was taken
	// What was written of the numbers that make a row behind one name (or many), and as escapes.
	named, escapes values
	escaped        int // where the last escape ended
}

// mostHeld is how much of a text is kept: a longer one is looked at by text as it is.
const mostHeld = 1 << 20

// values is a set of numbers below 16.
type values uint16

const allValues = 1<<16 - 1

func (s *values) add(v uint64) {
	if v < 16 {
		*s |= 1 << v
	}
}

// stops are the bytes at which a glance looks closer.
var stops = func() (s [256]byte) {
	for b, stop := range marked("0123456789\\kK\x00/*#;\n") {
		if stop {
			s[b] = 1
		}
	}
	return s
}()

// write adds p and reports whether text is to look at what is held by now, and at all that comes.
func (g *glance) write(p []byte) bool {
	g.held = append(g.held, p...)
	return len(g.held) > mostHeld || g.look(false)
}

// end is of a text that has ended.
func (g *glance) end() bool { return g.look(true) }

// look looks at what was not looked at yet, up to a word that may go on.
func (g *glance) look(ended bool) bool {
	p := g.held
	for i := g.at; ; {
		if i = nextStop(p, i); i == len(p) {
			g.at, _ = wordAround(p, i)
			return i-g.at > mostWord
		}
		switch p[i] {
		case 0: // UTF-16, or no text
			return true
		case '/', '*', '#', ';', '\n':
			g.take(i)
			i++
			continue
		}
		at := i
		if p[i] == '\\' {
			at++
		}
		from, to := wordAround(p, at)
		switch {
		case to-from > mostWord: // text looks at such a one in pieces
			return true
		case to == len(p) && !ended:
			g.at = min(from, i)
			return false
		case from < to && g.word(from, to):
			return true
		}
		i = max(to, i+1)
	}
}

// nextStop is where the next of stops is in p from i on, len(p) where none is.
func nextStop(p []byte, i int) int {
	for ; i+8 <= len(p); i += 8 {
		b := p[i : i+8 : i+8]
		if stops[b[0]]|stops[b[1]]|stops[b[2]]|stops[b[3]]|stops[b[4]]|stops[b[5]]|stops[b[6]]|stops[b[7]] != 0 {
			break
		}
	}
	for ; i < len(p) && stops[p[i]] == 0; i++ {
	}
	return i
}

// wordAround is where the word begins and ends that p[i] is in or follows.
func wordAround(p []byte, i int) (from, to int) {
	for from = i; from > 0 && classes[p[from-1]] == classWord; from-- {
	}
	for to = i; to < len(p) && classes[p[to]] == classWord; to++ {
	}
	return from, to
}

// take takes the mark at i, which may begin or end a comment.
func (g *glance) take(i int) {
	if g.mark != i-1 {
		g.marks.before = 0
	}
	g.marks.take(g.held[i])
	g.mark = i
}

// word takes a word that has one of stops in it or before it, and reports whether it is enough by itself,
// or with what was there before.
func (g *glance) word(from, to int) bool {
	w := g.held[from:to]
	if from > 0 && g.held[from-1] == '\\' {
		if v, size := escapeOf(w); size > 0 {
			return g.escape(from, to, v)
		}
	}
	if isDigit(w[0]) {
		return g.number(from, to)
	}
	if flag := flagOf(w); flag >= 0 && telling>>flag&1 == 1 || len(w) >= 16 && g.hexes.word(w) {
		return true
	}
	if _, v, ok := tail(w); ok {
		g.named.add(v)
	}
	return g.named == allValues
}

// escape takes the escape of a byte, which has to follow the one before.
func (g *glance) escape(from, to int, v uint64) bool {
	first := from
	for first > 0 && g.held[first-1] == '\\' {
		first--
	}
	if first != g.escaped {
		g.escapes = 0
	}
	g.escaped = to
	g.escapes.add(v)
	return g.escapes == allValues || g.views.escape(g.held[from], v)
}

func (g *glance) number(from, to int) bool {
	w := g.held[from:to]
	n := parseNumber(w)
	if g.indexes(from) {
		g.named.add(n.value)
	}
	return g.named == allValues || g.views.push(n, &g.marks) || len(w) > 2 && g.hexes.word(w)
}

// indexes reports whether the number at from may follow a name that it indexes: two marks at most are between them.
func (g *glance) indexes(from int) bool {
	marks := 0
	for i := from - 1; i >= 0; i-- {
		switch b := g.held[i]; classes[b] {
		case classWord:
			return true
		case classMark:
			if marks++; marks > 2 || breaking[b] {
				return false
			}
		}
	}
	return false
}
