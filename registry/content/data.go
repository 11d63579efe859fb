package content

// widest is the number of bytes of the widest element that a table in data may have.
const widest = 8

// history is how many bytes a table of sixteen elements reaches back.
const history = 16 * widest

// data looks for a row in bytes that are no text: as elements of 1, 2, 4 or 8
// bytes, either end first, at any place. Elements of w bytes are every w-th byte
// with zeros in between, whatever their order.
type data struct {
	low  int // how many bytes below 16 were there without a break
	by1  window
	by2  [2]window
	by4  [4]window
	by8  [8]window
	last [history]byte // a ring
	next int
}

// shortest is how many bytes the shortest row has: what is between higher bytes and has
// fewer than those is none.
const shortest = 16

// write looks at p, which goes on where the last one ended, and reports a hit.
func (d *data) write(p []byte) bool {
	for at := 0; at < len(p); {
		if d.low == 0 { // of every row that begins from here on, one byte is such a last one
			for at+shortest <= len(p) && p[at+shortest-1] > 15 {
				at += shortest
			}
			if at == len(p) {
				return false
			}
		}
		b := p[at]
		at++
		if b > 15 {
			d.low = 0
			continue
		}
		d.low++
		i := d.next
		d.last[i%history] = b
		d.next = (i + 1) % history
		d.by1 = d.by1.add(b)
		w2, w4, w8 := &d.by2[i%2], &d.by4[i%4], &d.by8[i%8]
		*w2, *w4, *w8 = w2.add(b), w4.add(b), w8.add(b)
		if d.low < shortest {
			continue
		}
		if d.by1.hit() || d.spread(*w2, 2) || d.spread(*w4, 4) || d.spread(*w8, 8) {
			return true
		}
	}
	return false
}

// spread reports whether w is a row, taken of every width-th byte up to the last, with zeros in between.
func (d *data) spread(w window, width int) bool {
	reach := 15*width + 1
	if d.low < reach || !w.hit() {
		return false
	}
	for back := range reach {
		if back%width != 0 && d.last[(d.next-1-back+2*history)%history] != 0 {
			return false
		}
	}
	return true
}
