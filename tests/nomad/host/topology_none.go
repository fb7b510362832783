//go:build !topology

package main

import "github.com/hashicorp/nomad/plugins/base"

// agentConfig is what an agent before 1.7 tells a plugin: nothing of the machine's processors.
func agentConfig() *base.AgentConfig {
	return &base.AgentConfig{
		Driver: &base.ClientDriverConfig{ClientMinPort: 14000, ClientMaxPort: 14512},
	}
}
