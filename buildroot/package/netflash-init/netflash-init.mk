################################################################################
#
# netflash-init
#
################################################################################

# Built from the workspace this tree is part of.
NETFLASH_INIT_VERSION = local
NETFLASH_INIT_SITE = $(BR2_EXTERNAL_NETFLASH_PATH)/..
NETFLASH_INIT_SITE_METHOD = local
NETFLASH_INIT_LICENSE = Apache-2.0 or MIT
NETFLASH_INIT_LICENSE_FILES = LICENSE-APACHE LICENSE-MIT
NETFLASH_INIT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target

NETFLASH_INIT_CARGO_BUILD_OPTS = --package netflash-init --bin netflash-init
NETFLASH_INIT_CARGO_ENV = \
	CARGO_TARGET_DIR=$(@D)/target \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS="-C target-feature=+crt-static"

# Buildroot vendors the crates of what it downloads; of a local source it does
# not, and then builds without network.
define NETFLASH_INIT_VENDOR_CRATES
	mkdir -p $(@D)/.cargo
	cd $(@D) && $(HOST_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
		cargo vendor --quiet --locked VENDOR > .cargo/config.toml
endef
NETFLASH_INIT_PRE_BUILD_HOOKS += NETFLASH_INIT_VENDOR_CRATES

NETFLASH_INIT_PROFILE = $(if $(BR2_ENABLE_DEBUG),debug,release)

define NETFLASH_INIT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/$(NETFLASH_INIT_PROFILE)/netflash-init \
		$(TARGET_DIR)/init
endef

$(eval $(cargo-package))
