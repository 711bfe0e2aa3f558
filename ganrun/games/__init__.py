"""GAN objectives: games, their players, losses, penalties and augmentation."""
