#!/usr/bin/env python3
"""Drives a Redfish controller with sushy, OpenStack's client: on by the network, reset, off.

Usage: redfish_sushy.py HOST:PORT USER PASSWORD
"""
import sys
import time
import warnings

import sushy

warnings.simplefilter("ignore")
address, user, password = sys.argv[1:]


def wait_for(system, state):
    """Look until the power state is as wanted, for ten seconds at most."""
    for _ in range(100):
        system.refresh(force=True)
        if system.power_state == state:
            return
        time.sleep(0.1)
    sys.exit(f"the state is {system.power_state}, not {state}")


root = sushy.Sushy(f"https://{address}", username=user, password=password, verify=False)
(system,) = root.get_system_collection().get_members()
wait_for(system, sushy.PowerState.OFF)
system.set_system_boot_options(
    target=sushy.BootSource.PXE,
    enabled=sushy.BootSourceOverrideEnabled.ONCE,
)
system.refresh(force=True)
if system.boot["target"] != sushy.BootSource.PXE:
    sys.exit(f"the next boot is {system.boot}")
system.reset_system(sushy.ResetType.ON)
wait_for(system, sushy.PowerState.ON)
system.reset_system(sushy.ResetType.FORCE_RESTART)
time.sleep(1)
wait_for(system, sushy.PowerState.ON)
system.reset_system(sushy.ResetType.FORCE_OFF)
wait_for(system, sushy.PowerState.OFF)
print("sushy is content")
