package content

import "math"

// number is a number as it may be meant: a zero in front makes it octal in C.
type number struct{ value, octal uint64 }

// parseNumber reads an integer in the spelling of most languages: 7, 007, 0x07,
// 0b111, 0o7, 07h, 7u8, 7usize, 7UL, 1_0. What follows the digits is passed over.
// One too large is the largest.
func parseNumber(w []byte) number {
	digits, base := w, uint64(10)
	if len(w) > 2 && w[0] == '0' {
		switch w[1] | 0x20 {
		case 'x':
			digits, base = w[2:], 16
		case 'o':
			digits, base = w[2:], 8
		case 'b':
			if hexValue(w[2]) < 2 || w[2] == '_' {
				digits, base = w[2:], 2
			}
		}
	}
	if last := w[len(w)-1]; base != 16 && last|0x20 == 'h' && allHex(w[:len(w)-1]) { // an assembler's
		digits, base = w[:len(w)-1], 16
	}
	n := number{value: readDigits(digits, base)}
	n.octal = n.value
	if base == 10 && w[0] == '0' && len(w) > 1 {
		n.octal = readDigits(w, 8)
	}
	return n
}

// readDigits reads digits of base until something is none.
func readDigits(w []byte, base uint64) (v uint64) {
	for _, b := range w {
		if b == '_' {
			continue
		}
		d := uint64(hexValue(b))
		if d >= base {
			break
		}
		if v > (math.MaxUint64-d)/base {
			return math.MaxUint64
		}
		v = v*base + d
	}
	return v
}

func allHex(w []byte) bool {
	for _, b := range w {
		if hexValue(b) > 15 {
			return false
		}
	}
	return len(w) > 0
}

// hexValue is the value of a hexadecimal digit, 255 for what is none.
func hexValue(b byte) byte {
	switch {
	case isDigit(b):
		return b - '0'
	case b|0x20-'a' < 6:
		return b | 0x20 - 'a' + 10
	}
	return 255
}

// view is a text as some languages read it: the numbers in it one after another.
type view struct {
	decimal, octal, fromOne run
	// pairs are every other number: behind an index or in front of something else.
	pairs [2]run
	odd   int
}

// push takes the next number and reports a hit.
func (v *view) push(n number) bool {
	hit := v.decimal.push(n.value)
	hit = v.octal.push(n.octal) || hit
	hit = v.fromOne.push(n.value-1) || hit
	hit = v.pairs[v.odd].push(n.value) || hit
	v.odd = 1 - v.odd
	return hit
}

// views are the views of a text.
type views [viewCount]view

// push takes the next number, where marks are what they are, and reports a hit.
func (v *views) push(n number, marks *marks) (hit bool) {
	for i := range v {
		if !marks.hidden(i) {
			hit = v[i].push(n) || hit
		}
	}
	return hit
}

// escape takes the value of a byte's escape that begins with first: it is a number as well
// where it is written as one.
func (v *views) escape(first byte, value uint64) (hit bool) {
	if first|0x20 != 'x' && !isDigit(first) {
		return false
	}
	for i := range v {
		hit = v[i].push(number{value: value, octal: value}) || hit
	}
	return hit
}

// named follows the numbers that index each name: m[2], m2, [m + 2]. Where two
// names meet in a place the older one is forgotten.
type named [256]indexed

// indexed are the numbers behind one name.
type indexed struct {
	name uint32 // a hash
	run
}

func (n *named) push(name []byte, v uint64) bool {
	hash := uint32(2166136261)
	for _, b := range name {
		hash = (hash ^ uint32(b)) * 16777619
	}
	s := &n[(hash^hash>>16)%uint32(len(n))]
	if s.name != hash {
		*s = indexed{name: hash}
	}
	return s.run.push(v)
}

// hexes look for a row within one word of hexadecimal digits, and in words of
// several bytes each.
type hexes struct {
	big, little run // bytes of words, in both orders
}

// word takes a word that begins with a digit or is long, and reports a hit.
func (h *hexes) word(w []byte) bool {
	if digits, ok := bare(w); ok {
		w = digits
		if h.bytes(w) {
			return true
		}
	}
	if len(w) < 16 {
		return false
	}
	var nibbles run
	var at [2]run // every other digit
	i := 0
	for _, b := range w {
		if b == '_' {
			continue
		}
		v := uint64(hexValue(b))
		at[i%2].push(v)
		this, other := at[i%2], at[1-i%2]
		if nibbles.push(v) || this.n >= 16 && this.hit() && other.n >= 15 && other.window<<4 == 0 {
			return true
		}
		i++
	}
	return false
}

// bytes takes the digits of a word of two to eight bytes.
func (h *hexes) bytes(w []byte) bool {
	var buf [maxHexDigits]byte
	digits := hexBytes(&buf, w)
	hit := false
	for i := 0; i < len(digits); i += 2 {
		hit = h.big.push(uint64(digits[i]<<4|digits[i+1])) || hit
		j := len(digits) - 2 - i
		hit = h.little.push(uint64(digits[j]<<4|digits[j+1])) || hit
	}
	return hit
}

// bare is what follows 0x.
func bare(w []byte) (digits []byte, ok bool) {
	if len(w) > 2 && w[0] == '0' && w[1]|0x20 == 'x' {
		return w[2:], true
	}
	return nil, false
}

const maxHexDigits = 18

// hexBytes are the digits, in pairs, of what follows 0x in a word of two to eight bytes; none of any other.
func hexBytes(buf *[maxHexDigits]byte, w []byte) []byte {
	n := 0
	for _, b := range w {
		v := hexValue(b)
		if b == '_' {
			continue
		}
		if v > 15 || n == 17 { // a suffix, or too long
			break
		}
		buf[n] = v
		n++
	}
	if n < 4 || n > 16 {
		return nil
	}
	if n%2 == 1 { // a leading zero that is not written
		copy(buf[1:], buf[:n])
		buf[0] = 0
		n++
	}
	return buf[:n]
}
