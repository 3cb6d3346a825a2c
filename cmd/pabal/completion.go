package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"
)

// Completion: the shell calls this program with the line so far in COMP_LINE, and it answers what may come next. A shell is
// told so by a script that `pabal completion` prints.

type completionCommand struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// Help is what kong adds to the help of the command.
func (completionCommand) Help() string {
	return "For bash: source <(pabal completion bash), in ~/.bashrc. For zsh: source <(pabal completion zsh), in ~/.zshrc after compinit. " +
		"For fish: pabal completion fish > ~/.config/fish/completions/pabal.fish. The script calls pabal by the name pabal: have it in " +
		"your path."
}

// The line up to the cursor is COMP_LINE, and its length COMP_POINT.
var completionScripts = map[string]string{
	"bash": "complete -o default -C pabal pabal\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -C pabal pabal\n",
	"fish": `function __pabal_complete
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct); and set COMP_LINE "$COMP_LINE "
    pabal
end
complete -c pabal -f -a "(__pabal_complete)"
`,
}

func (c *completionCommand) Run(a *app) error {
	_, err := fmt.Fprint(a.stdout, completionScripts[c.Shell])
	return err
}

// completed answers a shell that asks, and says whether one did.
func completed(parser *kong.Kong) bool {
	if os.Getenv("COMP_LINE") == "" {
		return false
	}
	kongplete.Complete(parser, kongplete.WithExitFunc(func(int) {}))
	return true
}
