package durable

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// ownerAlone is the access list of what is to be this user's alone, for a new file
// or folder: protected (P), so that it inherits nothing from its folder, and with
// full access for one user. flags are those of the entry, "OICI" for a folder whose
// contents inherit it. SYSTEM and Administrators are not in it: they can take what
// they want, as root can, and a backup reads by a privilege of its own.
func ownerAlone(flags string) (*windows.SecurityAttributes, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("who is this user: %w", err)
	}
	descriptor, err := windows.SecurityDescriptorFromString(fmt.Sprintf("D:P(A;%s;FA;;;%s)", flags, user.User.Sid))
	if err != nil {
		return nil, fmt.Errorf("access list: %w", err)
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	return attributes, nil
}

// SIDs that are the same on every computer.
const (
	everyone       = "S-1-1-0"
	ownerRights    = "S-1-3-4"
	anonymous      = "S-1-5-7"
	network        = "S-1-5-2"
	interactive    = "S-1-5-4"
	authenticated  = "S-1-5-11"
	system         = "S-1-5-18"
	administrators = "S-1-5-32-544"
	users          = "S-1-5-32-545"
	guests         = "S-1-5-32-546"
)

// publicGroups are those that everybody is in, or nearly.
var publicGroups = []string{everyone, anonymous, network, interactive, authenticated, users, guests}

func exposed(f *os.File, public bool) error {
	descriptor, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("who may open %s: %w", f.Name(), err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("who is this user: %w", err)
	}
	others, err := strangers(descriptor, user.User.Sid.String(), public)
	if err != nil {
		return fmt.Errorf("who may open %s: %w", f.Name(), err)
	}
	if len(others) == 0 {
		return nil
	}
	names := make([]string, 0, len(others))
	for _, sid := range others {
		names = append(names, account(sid))
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return &ExposedError{How: strings.Join(names, ", ") + " may open it", Mend: icacls(f.Name(), info.IsDir(), user.User.Sid.String(), others)}
}

// strangers returns whom a file's access list admits beside user, the file's owner
// and those who may do anything; with public, only groups that everybody is in.
func strangers(descriptor *windows.SECURITY_DESCRIPTOR, user string, public bool) ([]string, error) {
	own := []string{user, ownerRights, system, administrators}
	if owner, _, err := descriptor.Owner(); err == nil && owner != nil {
		own = append(own, owner.String())
	}
	sids, err := admitted(descriptor)
	return slices.DeleteFunc(sids, func(sid string) bool {
		return slices.Contains(own, sid) || public && !slices.Contains(publicGroups, sid)
	}), err
}

// admitted returns the SIDs that an access list lets do anything at all, each
// once; what no list says is allowed to everyone. Entries of kinds that are not
// known admit whom they name, if they do not deny.
func admitted(descriptor *windows.SECURITY_DESCRIPTOR) ([]string, error) {
	list, _, err := descriptor.DACL()
	if errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && list == nil {
		return []string{everyone}, nil
	}
	if err != nil {
		return nil, err
	}
	var sids []string
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &entry); err != nil {
			return nil, err
		}
		sid := everyone
		switch entry.Header.AceType {
		case windows.ACCESS_DENIED_ACE_TYPE, deniedObject, deniedCallback, deniedCallbackObject:
			continue
		case windows.ACCESS_ALLOWED_ACE_TYPE, allowedCallback:
			sid = (*windows.SID)(unsafe.Pointer(&entry.SidStart)).String()
		}
		if entry.Header.AceFlags&windows.INHERIT_ONLY_ACE == 0 && entry.Mask != 0 && !slices.Contains(sids, sid) {
			sids = append(sids, sid)
		}
	}
	return sids, nil
}

// Kinds of entries (ACE_HEADER) that x/sys does not name.
const (
	deniedObject         = 6
	allowedCallback      = 9
	deniedCallback       = 10
	deniedCallbackObject = 12
)

// account is the name of a SID for people.
func account(text string) string {
	sid, err := windows.StringToSid(text)
	if err != nil {
		return text
	}
	name, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return text
	}
	if domain == "" {
		return name
	}
	return domain + `\` + name
}

// icacls is the command that leaves a file or folder to user alone. It names SIDs:
// names of groups are other ones in every language of Windows.
func icacls(path string, folder bool, user string, others []string) string {
	inherited := ""
	if folder {
		inherited = "(OI)(CI)"
	}
	command := fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r "*%s:%sF" /remove`, path, user, inherited)
	for _, sid := range others {
		command += fmt.Sprintf(` "*%s"`, sid)
	}
	return command
}
