package web

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// headingsDown is by how much a README's headings are lowered: above them stand
// the page's own.
const headingsDown = 2

// idPrefix keeps a README's headings from taking the names of the page's parts.
const idPrefix = "readme-"

// fitIn fits sanitised HTML into a page: balanced, its headings below ours and
// with names to link to, its pictures as text, its links marked as other
// people's. Only elements that the sanitiser let pass may be in it.
func fitIn(clean []byte) ([]byte, error) {
	context := &html.Node{Type: html.ElementNode, Data: "div", DataAtom: atom.Div}
	nodes, err := html.ParseFragment(bytes.NewReader(clean), context)
	if err != nil {
		return nil, err
	}
	f := fitter{taken: map[string]int{}, level: headingsDown}
	var out bytes.Buffer
	for _, n := range nodes {
		context.AppendChild(n)
	}
	f.children(context)
	for n := context.FirstChild; n != nil; n = n.NextSibling {
		if err := html.Render(&out, n); err != nil {
			return nil, fmt.Errorf("render a README: %w", err)
		}
	}
	return out.Bytes(), nil
}

type fitter struct {
	// taken counts the names of headings.
	taken map[string]int
	// level is that of the last heading, as lowered.
	level int
	// linked: inside of a link.
	linked bool
}

func (f *fitter) children(parent *html.Node) {
	for n := parent.FirstChild; n != nil; {
		next := n.NextSibling
		f.node(n)
		n = next
	}
}

func (f *fitter) node(n *html.Node) {
	switch {
	case n.Type == html.TextNode:
		n.Data = tameLines(n.Data)
	case n.Type != html.ElementNode:
		n.Parent.RemoveChild(n)
	case n.DataAtom == atom.Img:
		f.picture(n)
	case n.DataAtom == atom.A:
		f.link(n)
	case len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6':
		f.children(n)
		f.heading(n)
	case n.DataAtom == atom.Li:
		f.children(n)
		if text := firstText(n); strings.HasPrefix(text, taskOpen) || strings.HasPrefix(text, taskDone) {
			n.Attr = append(n.Attr, html.Attribute{Key: "class", Val: "task"})
		}
	case n.DataAtom == atom.Pre || n.DataAtom == atom.Table:
		// Wide ones scroll, also by keyboard.
		f.children(n)
		if n.DataAtom == atom.Pre {
			n.Attr = append(n.Attr, html.Attribute{Key: "tabindex", Val: "0"})
		} else {
			wrap(n, "wide")
		}
	default:
		f.children(n)
	}
}

// wrap puts n into a div that scrolls.
func wrap(n *html.Node, class string) {
	box := &html.Node{Type: html.ElementNode, Data: "div", DataAtom: atom.Div, Attr: []html.Attribute{{Key: "class", Val: class}, {Key: "tabindex", Val: "0"}}}
	n.Parent.InsertBefore(box, n)
	n.Parent.RemoveChild(n)
	box.AppendChild(n)
}

// heading lowers n, to at most one below the heading before it, and names it
// after its text.
func (f *fitter) heading(n *html.Node) {
	f.level = min(int(n.Data[1]-'0')+headingsDown, f.level+1, 6)
	slug := f.name(beginning(n))
	n.Attr = []html.Attribute{{Key: "id", Val: idPrefix + slug}, {Key: "class", Val: "was-h" + n.Data[1:]}}
	n.Data = "h" + strconv.Itoa(f.level)
	n.DataAtom = atom.Lookup([]byte(n.Data))
}

// name is the anchor that GitHub would give a heading of that text.
func (f *fitter) name(text string) string {
	const most = 80
	slug := strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '-':
			return '-'
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(text))
	if runes := []rune(slug); len(runes) > most {
		slug = string(runes[:most])
	}
	n := f.taken[slug]
	f.taken[slug]++
	if n > 0 {
		slug += "-" + strconv.Itoa(n)
	}
	return slug
}

// link keeps addresses on the web and names of headings; the text of others stays.
func (f *fitter) link(n *html.Node) {
	href := attribute(n, "href")
	outer := f.linked
	f.linked = true
	f.children(n)
	f.linked = outer
	fragment, isFragment := strings.CutPrefix(href, "#")
	switch {
	case isFragment:
		n.Attr = []html.Attribute{{Key: "href", Val: "#" + idPrefix + strings.ToLower(fragment)}}
	case webURL(href) != "" || strings.HasPrefix(href, "mailto:"):
		n.Attr = []html.Attribute{{Key: "href", Val: href}, {Key: "rel", Val: "nofollow noopener noreferrer"}}
	default:
		n.Data, n.DataAtom, n.Attr = "span", atom.Span, nil
	}
}

// picture puts its text in the place of a picture, and a link to it, if it has
// an address: a page loads nothing from elsewhere.
func (f *fitter) picture(n *html.Node) {
	text, src := strings.TrimSpace(tame(attribute(n, "alt"))), attribute(n, "src")
	if text == "" {
		text = "picture"
	}
	n.Attr = nil
	if f.linked || webURL(src) == "" {
		n.Data, n.DataAtom = "span", atom.Span
	} else {
		n.Data, n.DataAtom = "a", atom.A
		n.Attr = []html.Attribute{{Key: "href", Val: src}, {Key: "rel", Val: "nofollow noopener noreferrer"}}
	}
	n.Attr = append(n.Attr, html.Attribute{Key: "class", Val: "picture"})
	n.AppendChild(&html.Node{Type: html.TextNode, Data: text})
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// firstText is the text that a list item begins with, in its first paragraph
// where it has paragraphs. It looks no further: items stand in items.
func firstText(item *html.Node) string {
	n := afterSpace(item.FirstChild)
	if n != nil && n.DataAtom == atom.P {
		n = afterSpace(n.FirstChild)
	}
	if n == nil || n.Type != html.TextNode {
		return ""
	}
	return strings.TrimLeft(n.Data, " \t\r\n")
}

// afterSpace is n, or what follows it where it is only space.
func afterSpace(n *html.Node) *html.Node {
	if n != nil && n.Type == html.TextNode && strings.TrimSpace(n.Data) == "" {
		return n.NextSibling
	}
	return n
}

// beginning is the text of a heading, as far as a name may need it: headings
// can stand in headings, and each is asked.
func beginning(heading *html.Node) string {
	const mostNodes, mostBytes = 256, 1024
	var b strings.Builder
	nodes := 0
	for d := range heading.Descendants() {
		if nodes++; nodes > mostNodes || b.Len() > mostBytes {
			break
		}
		if d.Type == html.TextNode {
			b.WriteString(d.Data[:min(len(d.Data), mostBytes)])
		}
	}
	return b.String()
}
