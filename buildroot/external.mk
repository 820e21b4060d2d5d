include $(sort $(wildcard $(BR2_EXTERNAL_NETFLASH_PATH)/package/*/*.mk))
