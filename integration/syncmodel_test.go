package integration

import (
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modelFS is a file system as POSIX promises it and no better: what was
// written to a file is forgotten unless the file was synced after it, and a name
// that was made, moved or removed is forgotten unless its folder was synced. It
// replays a trace of the system calls below root.
type modelFS struct {
	root    string
	top     *inode
	offsets map[string]int64 // of descriptors that write without naming an offset
}

// inode is a file or folder, as it is (now) and as the disk has it (kept).
type inode struct {
	folder      bool
	now, kept   []byte
	names, safe map[string]*inode
}

func newFolder() *inode {
	return &inode{folder: true, names: map[string]*inode{}, safe: map[string]*inode{}}
}

func newModelFS(root string) *modelFS {
	return &modelFS{root: root, top: newFolder(), offsets: map[string]int64{}}
}

// below gives the part of path below root.
func (m *modelFS) below(path string) (string, bool) {
	if path == m.root {
		return "", true
	}
	return strings.CutPrefix(path, m.root+"/")
}

// at is the inode of a path below root now, nil for none.
func (m *modelFS) at(rel string) *inode {
	n := m.top
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" {
			continue
		}
		if n = n.names[part]; n == nil {
			return nil
		}
	}
	return n
}

// parent is the folder of rel and its last part.
func (m *modelFS) parent(rel string) (*inode, string) {
	folder, name := filepath.Split(rel)
	return m.at(folder), name
}

// path is what a call's arguments at i (a folder) and i+1 (a name) or at i alone (a name) mean.
func pathAt(c call, i int, relative bool) string {
	if !relative {
		return string(c.args[i].bytes)
	}
	name := string(c.args[i+1].bytes)
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.args[i].path, name)
}

// apply does c. It reports what was synced: the path below root, "" for nothing.
func (m *modelFS) apply(c call, ignoreSync bool) (synced string, err error) {
	switch c.name {
	case "open", "openat", "creat":
		return "", m.open(c)
	case "write", "pwrite64":
		return "", m.write(c)
	case "lseek":
		if _, ok := m.below(c.args[0].path); ok {
			m.offsets[c.args[0].text] = c.result
		}
	case "ftruncate":
		if n := m.file(c.args[0].path); n != nil {
			n.now = resized(n.now, c.args[1].number())
		}
	case "rename", "renameat", "renameat2", "link", "linkat":
		return "", m.move(c)
	case "unlink", "rmdir":
		m.remove(pathAt(c, 0, false))
	case "unlinkat":
		m.remove(pathAt(c, 0, true))
	case "mkdir":
		m.make(pathAt(c, 0, false))
	case "mkdirat":
		m.make(pathAt(c, 0, true))
	case "fsync", "fdatasync":
		return m.sync(c.args[0].path, ignoreSync), nil
	default: // data that the trace does not show, or a call the model does not know
		for _, a := range c.args {
			if _, ok := m.below(a.path); ok {
				return "", fmt.Errorf("the model does not know %s", c.name)
			}
		}
	}
	return "", nil
}

func (m *modelFS) file(path string) *inode {
	rel, ok := m.below(path)
	if !ok {
		return nil
	}
	return m.at(rel)
}

func (m *modelFS) open(c call) error {
	path, flags := pathAt(c, 0, false), c.args[1].text
	if c.name == "openat" {
		path, flags = pathAt(c, 0, true), c.args[2].text
	}
	rel, ok := m.below(path)
	if !ok {
		return nil
	}
	m.offsets[fmt.Sprint(c.result)] = 0
	if strings.Contains(flags, "O_TMPFILE") || strings.Contains(flags, "O_APPEND") {
		return fmt.Errorf("the model does not know %s", flags)
	}
	n := m.at(rel)
	if n == nil && strings.Contains(flags, "O_CREAT") {
		folder, name := m.parent(rel)
		if folder == nil {
			return fmt.Errorf("%s is made in a folder that is not there", rel)
		}
		folder.names[name] = &inode{}
	} else if n != nil && strings.Contains(flags, "O_TRUNC") {
		n.now = nil
	}
	return nil
}

// write keeps nothing of a file that has no name any more: nothing of it can survive.
func (m *modelFS) write(c call) error {
	fd := c.args[0]
	rel, ok := m.below(fd.path)
	if !ok {
		return nil
	}
	at := m.offsets[fd.text]
	if c.name == "pwrite64" {
		at = c.args[3].number()
	} else {
		m.offsets[fd.text] = at + c.result
	}
	n := m.at(rel)
	if n == nil {
		return nil
	}
	data := c.args[1].bytes[:c.result]
	n.now = slices.Clone(n.now) // kept may be the same bytes
	if grown := at + int64(len(data)); grown > int64(len(n.now)) {
		n.now = resized(n.now, grown)
	}
	copy(n.now[at:], data)
	return nil
}

func resized(data []byte, size int64) []byte {
	again := make([]byte, size)
	copy(again, data)
	return again
}

func (m *modelFS) move(c call) error {
	var from, to string
	if strings.Contains(c.name, "at") {
		from, to = pathAt(c, 0, true), pathAt(c, 2, true)
	} else {
		from, to = pathAt(c, 0, false), pathAt(c, 1, false)
	}
	relFrom, okFrom := m.below(from)
	relTo, okTo := m.below(to)
	if !okFrom && !okTo {
		return nil
	}
	n := m.at(relFrom)
	oldFolder, oldName := m.parent(relFrom)
	newFolder, newName := m.parent(relTo)
	if !okFrom || !okTo || n == nil || newFolder == nil {
		return fmt.Errorf("%s of %s to %s", c.name, from, to)
	}
	newFolder.names[newName] = n
	if strings.HasPrefix(c.name, "rename") && (oldFolder != newFolder || oldName != newName) {
		delete(oldFolder.names, oldName)
	}
	return nil
}

func (m *modelFS) remove(path string) {
	if rel, ok := m.below(path); ok {
		if folder, name := m.parent(rel); folder != nil {
			delete(folder.names, name)
		}
	}
}

func (m *modelFS) make(path string) {
	if rel, ok := m.below(path); ok {
		if folder, name := m.parent(rel); folder != nil {
			folder.names[name] = newFolder()
		}
	}
}

func (m *modelFS) sync(path string, ignore bool) string {
	rel, ok := m.below(path)
	if !ok {
		return ""
	}
	n := m.at(rel)
	if n == nil {
		return ""
	}
	if !ignore {
		n.kept, n.safe = n.now, maps.Clone(n.names)
	}
	return "/" + rel
}

// survival is what is assumed of what was not synced.
type survival int

const (
	// nothingElse: it is forgotten, names and bytes.
	nothingElse survival = iota
	// namesOnly: the names are there, as a journal writes them first, but not the bytes.
	namesOnly
	// everything: as after the process alone was killed.
	everything
	survivals
)

func (s survival) String() string {
	return [...]string{"nothing unsynced survives", "names survive, bytes do not", "all survives"}[s]
}

// tree is what is found after the power came back: files with their bytes, folders with nil.
type tree map[string][]byte

// cut is the tree that survives a power cut now.
func (m *modelFS) cut(how survival) tree {
	t := tree{}
	var walk func(n *inode, path string)
	walk = func(n *inode, path string) {
		if !n.folder {
			t[path] = n.kept
			if how == everything {
				t[path] = n.now
			}
			if t[path] == nil {
				t[path] = []byte{}
			}
			return
		}
		t[path] = nil
		entries := n.safe
		if how != nothingElse {
			entries = n.names
		}
		for name, child := range entries {
			if !strings.HasSuffix(name, "-shm") { // SQLite's shared memory: made anew by whoever comes first
				walk(child, path+"/"+name)
			}
		}
	}
	walk(m.top, "")
	return t
}

// sum tells trees apart.
func (t tree) sum(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, path := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&h, "%q %v %d\n", path, t[path] == nil, len(t[path]))
		h.Write(t[path])
	}
	return h.Sum64()
}

// write makes the tree in folder.
func (t tree) write(folder string) error {
	for _, path := range slices.Sorted(maps.Keys(t)) {
		var err error
		if t[path] == nil {
			err = os.MkdirAll(filepath.Join(folder, path), 0o700)
		} else {
			err = os.WriteFile(filepath.Join(folder, path), t[path], 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
