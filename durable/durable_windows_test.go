package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// withList makes a file whose access list is set to text (SDDL).
func withList(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := CreateFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	descriptor, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestAFileThatEveryoneMayReadIsExposed(t *testing.T) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	me := user.User.Sid.String()
	f := withList(t, "D:P(A;;FA;;;"+me+")(A;;FR;;;WD)")
	for name, check := range map[string]func(*os.File) error{"OwnerOnly": OwnerOnly, "NotPublic": NotPublic} {
		var exposed *ExposedError
		if err := check(f); !errors.As(err, &exposed) {
			t.Fatalf("%s: %v, want an ExposedError", name, err)
		}
		if !strings.HasSuffix(exposed.How, " may open it") {
			t.Errorf("%s: how: %q", name, exposed.How)
		}
		want := `icacls "` + f.Name() + `" /inheritance:r /grant:r "*` + me + `:F" /remove "*S-1-1-0"`
		if exposed.Mend != want {
			t.Errorf("%s: mended by\n%s\nwant\n%s", name, exposed.Mend, want)
		}
	}
}

func TestStrangers(t *testing.T) {
	const me, owner, other = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002", "S-1-5-21-1-2-3-1003"
	tests := map[string]struct{ others, everybody string }{
		"O:" + owner + "D:P(A;;FA;;;" + me + ")":                                      {},
		"O:" + owner + "D:P(A;;FA;;;" + owner + ")(A;;FA;;;SY)(A;;FA;;;BA)":           {},
		"O:" + owner + "D:AI(A;ID;FA;;;" + me + ")(A;ID;FR;;;" + other + ")":          {other, ""},
		"O:" + owner + "D:AI(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)(A;ID;FA;;;" + me + ")": {users, users},
		"O:" + owner + "D:P(A;;FR;;;AU)(A;;FR;;;" + other + ")":                       {authenticated + " " + other, authenticated},
		"O:" + owner: {everyone, everyone},
	}
	for text, want := range tests {
		descriptor, err := windows.SecurityDescriptorFromString(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for public, want := range map[bool]string{false: want.others, true: want.everybody} {
			got, err := strangers(descriptor, me, public)
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s (public: %v): %q, %v; want %q", text, public, got, err, want)
			}
		}
	}
}

func TestWhomAnAccessListAdmits(t *testing.T) {
	tests := map[string]string{
		"D:P(A;;FA;;;SY)":                         system,
		"D:P(A;;FR;;;WD)(A;;FA;;;SY)":             everyone + " " + system,
		"D:P(A;;0x100000;;;BU)":                   users,
		"D:P(D;;FA;;;WD)(A;;FA;;;BA)":             administrators,
		"D:P(A;OICIIO;FA;;;CO)(A;OICI;FA;;;BA)":   administrators,
		"D:P(A;;FR;;;WD)(A;;FW;;;WD)":             everyone,
		"D:P":                                     "",
		"O:SYG:SY":                                everyone,
		"D:P(A;;FA;;;S-1-5-21-1-2-3-1001)":        "S-1-5-21-1-2-3-1001",
		"D:AI(A;ID;FA;;;S-1-5-21-1-2-3-1001)":     "S-1-5-21-1-2-3-1001",
		"D:P(A;;FA;;;OW)(A;;FR;;;AU)(A;;FR;;;IU)": ownerRights + " " + authenticated + " " + interactive,
	}
	for text, want := range tests {
		descriptor, err := windows.SecurityDescriptorFromString(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := admitted(descriptor)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s admits %q, %v; want %q", text, got, err, want)
		}
	}
}

// What is asked of Windows for a private file and for a private folder.
func TestOwnerAlone(t *testing.T) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]string{"": "D:P(A;;FA;;;", "OICI": "D:P(A;OICI;FA;;;"} {
		attributes, err := ownerAlone(flags)
		if err != nil {
			t.Fatal(err)
		}
		if got := attributes.SecurityDescriptor.String(); got != want+user.User.Sid.String()+")" {
			t.Errorf("the access list is %s", got)
		}
	}
}

func TestTheCommandThatMendsAFolder(t *testing.T) {
	got := icacls(`C:\my keys`, true, "S-1-5-21-7", []string{everyone, users})
	if want := `icacls "C:\my keys" /inheritance:r /grant:r "*S-1-5-21-7:(OI)(CI)F" /remove "*S-1-1-0" "*S-1-5-32-545"`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestAFileThatStaysInUseIsNotReplaced(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pin")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path) // shares no deletion
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := WriteFile(path, []byte("new"), 0o600); !inUse(err) {
		t.Errorf("WriteFile: error %v, want that the file is in use", err)
	}
	wantOnly(t, folder, "pin", "old")
}
