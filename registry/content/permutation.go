package content

// permutation is BLAKE3's: round r+1 takes as its i-th word what was at permutation[i] in round r.
var permutation = [16]byte{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}

// columns is the order in which code for vectors takes the words of a round:
// first words of the four columns, second words, then the same of the diagonals.
var columns = [16]byte{0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15}

// rounds is how many rounds there are; the first one's row is 0, 1, 2, ….
const rounds = 7

// rows are the orders that give BLAKE3 away, each sixteen numbers of four bits,
// the first one uppermost.
var rows = func() map[window]bool {
	set := map[window]bool{}
	for _, p := range [][16]byte{permutation, inverse(permutation)} {
		row := p
		for range rounds - 1 {
			set[pack(row)] = true
			set[pack(compose(row, columns))] = true
			set[pack(reversed(row))] = true
			row = compose(row, p)
		}
	}
	return set
}()

// window is the last sixteen numbers below 16, four bits each, the newest lowest.
type window uint64

// add is w with one number more.
func (w window) add(v byte) window { return w<<4 | window(v) }

// hit reports whether w is one of rows.
func (w window) hit() bool { return filter[w.slot()] && rows[w] }

// filter says no to nearly all that are not in rows, faster than rows does.
var filter = func() (f [filterSlots]bool) {
	for w := range rows {
		f[w.slot()] = true
	}
	return f
}()

const filterSlots = 1 << 12

// slot is a hash of w.
func (w window) slot() uint64 { return uint64(w) * 0x9e3779b97f4a7c15 >> (64 - 12) }

func pack(row [16]byte) (w window) {
	for _, v := range row {
		w = w.add(v)
	}
	return w
}

// compose gives a's value at each place that b names.
func compose(a, b [16]byte) (c [16]byte) {
	for i, at := range b {
		c[i] = a[at]
	}
	return c
}

func inverse(a [16]byte) (b [16]byte) {
	for i, v := range a {
		b[v] = byte(i)
	}
	return b
}

func reversed(a [16]byte) (b [16]byte) {
	for i, v := range a {
		b[15-i] = v
	}
	return b
}

// run is a window together with how many numbers in it are without a break.
type run struct {
	window
	n int
}

// push adds v, or breaks the run where it is no number below 16, and reports a hit.
func (r *run) push(v uint64) bool {
	if v > 15 {
		r.n = 0
		return false
	}
	r.window = r.add(byte(v))
	r.n++
	return r.n >= 16 && r.hit()
}
