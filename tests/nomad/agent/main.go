// Command nomad is a whole Nomad agent and its command line, built as a dependency: the tests'
// real host for the plugin where no nomad is installed.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/nomad/command"
	"github.com/hashicorp/nomad/version"
	"github.com/mitchellh/cli"

	// The agent starts its own executable again for these: their init functions take over then.
	_ "github.com/hashicorp/nomad/client/logmon"
	_ "github.com/hashicorp/nomad/drivers/docker/docklog"
	_ "github.com/hashicorp/nomad/drivers/shared/executor"
)

func main() {
	ui := &cli.BasicUi{Reader: os.Stdin, Writer: os.Stdout, ErrorWriter: os.Stderr}
	meta := command.Meta{Ui: ui}
	app := cli.NewCLI("nomad", version.GetVersion().VersionNumber())
	app.Args = os.Args[1:]
	app.Commands = command.Commands(&meta, ui)
	code, err := app.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
