//go:build topology

package main

import (
	"github.com/hashicorp/nomad/client/lib/numalib"
	"github.com/hashicorp/nomad/plugins/base"
)

// agentConfig is what an agent since 1.7 tells a plugin, processors and their speed included.
func agentConfig() *base.AgentConfig {
	return &base.AgentConfig{
		Driver: &base.ClientDriverConfig{
			ClientMinPort: 14000, ClientMaxPort: 14512,
			Topology: numalib.Scan(numalib.PlatformScanners(true)),
		},
	}
}
