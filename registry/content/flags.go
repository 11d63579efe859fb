package content

import "bytes"

// The flags in the order of their values, 1, 2, 4, …, 64.
const (
	flagChunkStart = iota
	flagChunkEnd
	flagParent
	flagRoot
	flagKeyedHash
	flagContext
	flagMaterial
	flagCount
)

// flagNames are how names of flags end, in small letters without "_".
var flagNames = []struct {
	end  string
	flag int
}{
	{"chunkstart", flagChunkStart}, {"chunkend", flagChunkEnd}, {"parent", flagParent}, {"root", flagRoot},
	{"keyedhash", flagKeyedHash}, {"keyed", flagKeyedHash},
	{"derivekeycontext", flagContext}, {"derivekeyctx", flagContext}, {"derivekeymaterial", flagMaterial}, {"derivekeymat", flagMaterial},
}

// telling are the flags whose names nothing else has.
const telling = 1<<flagChunkStart | 1<<flagChunkEnd | 1<<flagContext | 1<<flagMaterial

// flags looks for names of flags together with their values: in one file four of
// them, two of which are telling, or all that are telling in several. Names alone
// are enough where the first four are declared in their order.
type flags struct {
	crate *flagSet // of all files
	file  flagSet  // of this one
	// open is the flag whose value is looked for, plus one; words is for how many more.
	open, words int
	value       uint64
	valued      bool
	isBit       bool // a word says that the value is a bit's number
	shifts      int  // how many < follow the value
	// ordered is how many flags were named in their order, apart how many words ago the last.
	ordered, apart int
	declared       bool
	// changed: something was found since somebody looked.
	changed bool
}

// flagSet is a bit for each flag that was found with its value.
type flagSet uint8

func (s flagSet) count() (all, tell int) {
	for i := range flagCount {
		if s>>i&1 == 1 {
			all++
		}
		if (s&telling)>>i&1 == 1 {
			tell++
		}
	}
	return all, tell
}

// recognised reports whether what was found is enough.
func (f *flags) recognised() bool {
	all, tell := f.file.count()
	if f.declared || all >= 4 && tell >= 2 {
		return true
	}
	return f.crate != nil && *f.crate&telling == telling
}

// valueWithin is how many words after a flag's name its value may stand.
const valueWithin = 8

// name takes a name.
func (f *flags) name(w []byte) {
	flag := flagOf(w)
	f.apart++
	if flag < 0 {
		f.other(w)
		return
	}
	f.settle()
	if flag == f.ordered && f.apart <= valueWithin {
		f.ordered++
	} else if f.ordered = 0; flag == 0 {
		f.ordered = 1
	}
	if f.apart = 0; f.ordered > flagRoot {
		f.declared, f.changed = true, true
	}
	f.open, f.words, f.valued, f.isBit = flag+1, valueWithin, false, false
}

// other takes a name that is no flag's, in between.
func (f *flags) other(w []byte) {
	if f.open == 0 {
		return
	}
	if f.words--; f.words == 0 {
		f.settle()
	}
	f.isBit = f.isBit || len(w) <= 5 && bytes.HasPrefix(bytes.ToLower(w), []byte("bit"))
}

// number takes a number.
func (f *flags) number(v uint64) {
	f.apart++
	switch {
	case f.open == 0:
		return
	case f.isBit:
		f.value, f.valued = 1<<min(v, 63), true
	case !f.valued:
		f.value, f.valued, f.shifts = v, true, 0
		return
	case f.shifts == 2:
		f.value <<= min(v, 63)
	}
	f.settle()
}

// mark takes a byte between words while the value of a flag is looked for.
func (f *flags) mark(b byte) {
	switch {
	case b == '<' && f.valued:
		f.shifts++
	case b == ';' || b == '}' || f.valued && (b == '\n' || b == ','):
		f.settle()
	}
}

// settle ends the search for a value: it was the flag's, or not.
func (f *flags) settle() {
	flag, valued := f.open-1, f.open > 0 && f.valued
	f.open, f.valued = 0, false
	if !valued {
		return
	}
	if f.value != 1<<flag {
		f.ordered = 0
		return
	}
	f.changed = true
	f.file |= 1 << flag
	if f.crate != nil {
		*f.crate |= 1 << flag
	}
}

// flagOf is the flag that w names, -1 for none.
func flagOf(w []byte) int {
	if len(w) < len("root") || len(w) > 64 || !flagEnds.has(w[len(w)-2], w[len(w)-1]) {
		return -1
	}
	var buf [64]byte
	name := buf[:0]
	for _, b := range w {
		if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		if b != '_' {
			name = append(name, b)
		}
	}
	for _, suffix := range []string{"s", "flag", "bit"} {
		name = bytes.TrimSuffix(name, []byte(suffix))
	}
	for _, n := range flagNames {
		if bytes.HasSuffix(name, []byte(n.end)) {
			return n.flag
		}
	}
	return -1
}

// flagEnds are the last two letters that a flag's name may have.
var flagEnds = func() (e ends) {
	e.add("ag")
	e.add("gs")
	e.add("it")
	for _, n := range flagNames {
		e.add(n.end[len(n.end)-2:])
	}
	return e
}()

// ends has, for the letter before the last, a bit for every last one: nearly every name in a
// text is asked about.
type ends [26]uint32

func (e *ends) add(two string) { e[two[0]-'a'] |= 1 << (two[1] - 'a') }

// has is of letters of either case; nothing else ends a flag's name.
func (e *ends) has(a, b byte) bool {
	a, b = a|0x20-'a', b|0x20-'a'
	return a < 26 && b < 26 && e[a]>>b&1 == 1
}
