// Command consul is a whole Consul agent and its command line, built as a dependency: the tests'
// service mesh where no consul is installed.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/consul/command"
	consul "github.com/hashicorp/consul/command/cli"
	"github.com/hashicorp/consul/version"
	"github.com/mitchellh/cli"
)

func main() {
	ui := &consul.BasicUI{BasicUi: cli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	app := cli.NewCLI("consul", version.GetHumanVersion())
	app.Args = os.Args[1:]
	app.Commands = command.RegisteredCommands(ui)
	code, err := app.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
