package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
)

//go:embed assets templates
var files embed.FS

// assetFile is a file of ours that pages refer to. Its name holds its hash, so
// that it can be kept for ever.
type assetFile struct {
	name, mediaType string
	data            []byte
}

// assets are found by their plain name, assetsByName by the one with the hash.
var (
	assets       = readAssets("style.css", "icon.svg")
	assetsByName = byName(assets)
)

// templates are parsed when the first page is made: the program is cargo's credential provider
// too, which is started for every build.
var templates = sync.OnceValue(func() map[string]*template.Template {
	return parseTemplates("front", "me", "search", "kinds", "list", "artifact", "log", "record", "rules", "grants", "audit", "upstreams", "upstream", "seen", "alarms", "problem")
})

func readAssets(names ...string) map[string]assetFile {
	types := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	all := map[string]assetFile{}
	for _, name := range names {
		data, err := files.ReadFile("assets/" + name)
		if err != nil { // embedded, so never
			panic("web: " + err.Error())
		}
		sum := sha256.Sum256(data)
		ext := path.Ext(name)
		all[name] = assetFile{strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:8]) + ext, types[ext], data}
	}
	return all
}

func byName(all map[string]assetFile) map[string]assetFile {
	named := map[string]assetFile{}
	for _, a := range all {
		named[a.name] = a
	}
	return named
}

func parseTemplates(names ...string) map[string]*template.Template {
	layout := template.Must(template.New("layout").Funcs(functions).ParseFS(files, "templates/layout.html"))
	all := map[string]*template.Template{}
	for _, name := range names {
		all[name] = template.Must(template.Must(layout.Clone()).ParseFS(files, "templates/"+name+".html"))
	}
	return all
}

func (p *Pages) asset(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	a, ok := assetsByName[chi.URLParam(r, "file")]
	if !ok {
		p.page(func(http.ResponseWriter, *http.Request, *visit) error { return errNoPage })(w, r)
		return
	}
	w.Header().Set("Content-Type", a.mediaType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	if r.Method != http.MethodHead {
		w.Write(a.data)
	}
}
