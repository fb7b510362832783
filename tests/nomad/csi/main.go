// Command csi is the smallest CSI node plugin that Nomad calls healthy: it says who it is and that
// it is ready, on the socket that Nomad names. It first says what it sees of its /dev.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

type plugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
}

func (plugin) GetPluginInfo(
	context.Context, *csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "test.driver", VendorVersion: "1"}, nil
}

func (plugin) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (plugin) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (plugin) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (plugin) NodeGetInfo(
	context.Context, *csi.NodeGetInfoRequest,
) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "test", MaxVolumesPerNode: 1}, nil
}

func main() {
	if _, err := os.Lstat(os.Args[2]); err != nil {
		fmt.Println("the host's node is not there:", err)
	} else {
		fmt.Println("the host's node is there")
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, plugin{})
	csi.RegisterNodeServer(server, plugin{})
	if err := server.Serve(listener); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
